package workflowstore_test

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	commonpb "go.temporal.io/api/common/v1"
	enumspb "go.temporal.io/api/enums/v1"
	failurepb "go.temporal.io/api/failure/v1"
	"go.temporal.io/api/serviceerror"
	workflowpb "go.temporal.io/api/workflow/v1"
	"go.temporal.io/api/workflowservice/v1"
	"go.temporal.io/sdk/client"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/earmark-dev/earmark"
	"github.com/earmark-dev/earmark/internal/workflowstore"
	"github.com/earmark-dev/earmark/workflows"
)

// listing is a Temporal that lists a number of workflows for the search of failing
// settlements, page by page, and describes each as running.
type listing struct {
	client.Client
	workflows int
}

func (l *listing) ListWorkflow(_ context.Context, request *workflowservice.ListWorkflowExecutionsRequest) (*workflowservice.ListWorkflowExecutionsResponse, error) {
	if !strings.Contains(request.GetQuery(), workflows.StateAttributeSettling) {
		return &workflowservice.ListWorkflowExecutionsResponse{}, nil
	}
	first, _ := strconv.Atoi(string(request.GetNextPageToken()))
	answer := &workflowservice.ListWorkflowExecutionsResponse{}
	for n := first; n < min(first+int(request.GetPageSize()), l.workflows); n++ {
		answer.Executions = append(answer.Executions, &workflowpb.WorkflowExecutionInfo{Execution: &commonpb.WorkflowExecution{WorkflowId: fmt.Sprint("reservation-", n)}})
	}
	if next := first + len(answer.Executions); next < l.workflows {
		answer.NextPageToken = []byte(strconv.Itoa(next))
	}
	return answer, nil
}

func (l *listing) DescribeWorkflowExecution(context.Context, string, string) (*workflowservice.DescribeWorkflowExecutionResponse, error) {
	return &workflowservice.DescribeWorkflowExecutionResponse{
		WorkflowExecutionInfo: &workflowpb.WorkflowExecutionInfo{Status: enumspb.WORKFLOW_EXECUTION_STATUS_RUNNING},
	}, nil
}

// Every page of a search is read, and what is past the bound is said.
func TestStuckFinderReadsAllPages(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		workflows, found int
		incomplete       bool
	}{{0, 0, false}, {1, 1, false}, {500, 500, false}, {501, 501, false}, {2_300, 2_300, false}, {10_000, 10_000, false}, {10_001, 10_000, true}} {
		t.Run(strconv.Itoa(c.workflows), func(t *testing.T) {
			t.Parallel()
			f := &workflowstore.StuckFinder{Client: &listing{workflows: c.workflows}}
			findings, err := f.Find(t.Context(), "acme", nil)
			require.NoError(t, err)
			require.Equal(t, c.found, len(findings.Workflows)) //nolint:testifylint // a failure would print them all
			require.Equal(t, c.incomplete, findings.Incomplete != "")
			for _, stuck := range findings.Workflows {
				require.Equal(t, earmark.StuckSettlementFailing, stuck.Reason)
			}
		})
	}
}

// server is a Temporal with workflows; an old one refuses searches with a status that it does not know.
type server struct {
	client.Client
	old      bool
	searches []string
	status   map[string]*workflowservice.DescribeWorkflowExecutionResponse
}

func (s *server) ListWorkflow(_ context.Context, request *workflowservice.ListWorkflowExecutionsRequest) (*workflowservice.ListWorkflowExecutionsResponse, error) {
	answer := &workflowservice.ListWorkflowExecutionsResponse{}
	activities := strings.Contains(request.GetQuery(), "TemporalPauseInfo")
	if !activities && !strings.Contains(request.GetQuery(), "'Paused'") {
		return answer, nil
	}
	s.searches = append(s.searches, request.GetQuery())
	if s.old {
		return nil, serviceerror.NewInvalidArgument("invalid query")
	}
	for _, id := range slices.Sorted(maps.Keys(s.status)) {
		if activities != (len(s.status[id].GetPendingActivities()) > 0) {
			continue
		}
		answer.Executions = append(answer.Executions, &workflowpb.WorkflowExecutionInfo{Execution: &commonpb.WorkflowExecution{WorkflowId: id}})
	}
	return answer, nil
}

func (s *server) DescribeWorkflowExecution(_ context.Context, workflowID, _ string) (*workflowservice.DescribeWorkflowExecutionResponse, error) {
	return s.status[workflowID], nil
}

// Somebody paused a workflow: the list says who, when and why, as long as it is paused.
func TestStuckFinderFindsPausedWorkflows(t *testing.T) {
	t.Parallel()
	at := time.Date(2026, 7, 1, 12, 0, 0, 0, time.UTC)
	described := func(status enumspb.WorkflowExecutionStatus, pause *workflowpb.WorkflowExecutionPauseInfo) *workflowservice.DescribeWorkflowExecutionResponse {
		return &workflowservice.DescribeWorkflowExecutionResponse{
			WorkflowExecutionInfo: &workflowpb.WorkflowExecutionInfo{Status: status}, WorkflowExtendedInfo: &workflowpb.WorkflowExecutionExtendedInfo{PauseInfo: pause},
		}
	}
	temporal := &server{status: map[string]*workflowservice.DescribeWorkflowExecutionResponse{
		"reservation-a": described(enumspb.WORKFLOW_EXECUTION_STATUS_PAUSED, &workflowpb.WorkflowExecutionPauseInfo{Identity: "alice", Reason: "the bill\nis wrong", PausedTime: timestamppb.New(at)}),
		"reservation-b": described(enumspb.WORKFLOW_EXECUTION_STATUS_PAUSED, nil),
		"reservation-c": described(enumspb.WORKFLOW_EXECUTION_STATUS_RUNNING, nil), // unpaused, and visibility lags behind
		"reservation-d": {
			WorkflowExecutionInfo: &workflowpb.WorkflowExecutionInfo{Status: enumspb.WORKFLOW_EXECUTION_STATUS_RUNNING},
			PendingActivities: []*workflowpb.PendingActivityInfo{{
				ActivityId: "12", ActivityType: &commonpb.ActivityType{Name: "Commit"}, Attempt: 2, Paused: true, LastFailure: &failurepb.Failure{Message: "Postgres is away"},
				PauseInfo: &workflowpb.PendingActivityInfo_PauseInfo{PauseTime: timestamppb.New(at), PausedBy: &workflowpb.PendingActivityInfo_PauseInfo_Manual_{
					Manual: &workflowpb.PendingActivityInfo_PauseInfo_Manual{Identity: "bob", Reason: "wait"}}},
			}},
		},
	}}
	f := &workflowstore.StuckFinder{Client: temporal}
	findings, err := f.Find(t.Context(), "acme", []string{"reservation-b"})
	require.NoError(t, err)
	require.Equal(t, []workflowstore.StuckWorkflow{
		{WorkflowID: "reservation-a", Reason: earmark.StuckPaused, Since: &at, Detail: "paused by alice: the bill is wrong"},
		{WorkflowID: "reservation-b", Reason: earmark.StuckPaused, Detail: "paused"},
		{WorkflowID: "reservation-d", Reason: earmark.StuckPaused, Since: &at, Detail: "activity Commit paused by bob: wait; its last error: Postgres is away", ActivityID: "12"},
	}, findings.Workflows)
	require.Subset(t, titles(f), []string{"paused", "activity paused"})

	// A server that cannot pause refuses both searches. It is asked once for each.
	old := &server{old: true}
	f = &workflowstore.StuckFinder{Client: old}
	for range 2 {
		findings, err = f.Find(t.Context(), "acme", nil)
		require.NoError(t, err)
		require.Empty(t, findings)
	}
	require.Len(t, old.searches, 2)
	require.NotContains(t, titles(f), "paused")
	require.NotContains(t, titles(f), "activity paused")
}

func titles(f *workflowstore.StuckFinder) (titles []string) {
	for _, search := range f.Searches("acme", time.Now()) {
		titles = append(titles, search.Title)
	}
	return titles
}

// tenants is a Temporal whose searches of one tenant's workflows find none, and of all many.
type tenants struct{ listing }

func (s *tenants) ListWorkflow(ctx context.Context, request *workflowservice.ListWorkflowExecutionsRequest) (*workflowservice.ListWorkflowExecutionsResponse, error) {
	if strings.Contains(request.GetQuery(), " AND (EarmarkTenant = 'acme' OR EarmarkTenant IS NULL)") {
		return &workflowservice.ListWorkflowExecutionsResponse{}, nil
	}
	return s.listing.ListWorkflow(ctx, request)
}

func (s *tenants) DescribeWorkflowExecution(_ context.Context, id, _ string) (*workflowservice.DescribeWorkflowExecutionResponse, error) {
	return nil, serviceerror.NewNotFound(id)
}

// However much of one tenant is stuck, what is suspected of another is looked at.
func TestStuckFinderKeepsTenantsApart(t *testing.T) {
	t.Parallel()
	f := &workflowstore.StuckFinder{Client: &tenants{listing{workflows: 2000}}}
	findings, err := f.Find(t.Context(), "acme", []string{"reservation-mine"})
	require.NoError(t, err)
	require.Equal(t, []workflowstore.StuckWorkflow{{WorkflowID: "reservation-mine", Reason: earmark.StuckOrphan}}, findings.Workflows)
	for _, search := range f.Searches("o'neil", time.Now()) {
		require.Contains(t, search.Query, ` AND EarmarkTenant = 'o\'neil'`)
	}
}
