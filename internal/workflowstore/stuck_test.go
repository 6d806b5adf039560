package workflowstore_test

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	commonpb "go.temporal.io/api/common/v1"
	enumspb "go.temporal.io/api/enums/v1"
	workflowpb "go.temporal.io/api/workflow/v1"
	"go.temporal.io/api/workflowservice/v1"
	"go.temporal.io/sdk/client"

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
			findings, err := f.Find(t.Context(), nil)
			require.NoError(t, err)
			require.Equal(t, c.found, len(findings.Workflows)) //nolint:testifylint // a failure would print them all
			require.Equal(t, c.incomplete, findings.Incomplete != "")
			for _, stuck := range findings.Workflows {
				require.Equal(t, earmark.StuckSettlementFailing, stuck.Reason)
			}
		})
	}
}
