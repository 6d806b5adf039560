package workflows

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	commonpb "go.temporal.io/api/common/v1"
	enumspb "go.temporal.io/api/enums/v1"
	failurepb "go.temporal.io/api/failure/v1"
	historypb "go.temporal.io/api/history/v1"
	"go.temporal.io/api/serviceerror"
	"go.temporal.io/api/workflowservice/v1"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/converter"
	"golang.org/x/sync/errgroup"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/earmark-dev/earmark"
	"github.com/earmark-dev/earmark/activities"
)

// Bounds of one look for trouble, so that looking does not make more of it.
const (
	maxListed       = 500 // workflows that a search for trouble takes in
	maxDescribed    = 100
	describesAtOnce = 8
	lastEvents      = 20  // of a history, among which is what fails
	maxDetailBytes  = 500 // of an error that is shown
	// failingTries is from which try on an activity keeps failing; the quick tries
	// before it are not counted.
	failingTries = 4
)

// The searches for trouble. Temporal before 1.31 has no attribute for tasks that
// fail; there the workflow is described.
const (
	openReservations   = "WorkflowType = '" + ReservationType + "' AND ExecutionStatus = 'Running'"
	settlementFailing  = openReservations + " AND EarmarkState = '" + StateAttributeSettling + "'"
	inReview           = openReservations + " AND EarmarkState = '" + StateAttributeReview + "'"
	taskFailing        = openReservations + " AND TemporalReportedProblems IS NOT NULL"
	overdueReservation = openReservations + " AND EarmarkState IS NULL AND EarmarkExpiresAt < '%s'" // not moved by an extension
)

// Trouble is a reservation's workflow that does not get on.
type Trouble struct {
	WorkflowID string
	Reason     earmark.StuckReason
	Since      *time.Time // nil where it is not known
	Detail     string     // the last error
}

// Troubles finds what only Temporal knows of stuck reservations.
type Troubles struct {
	Client    client.Client
	Namespace string
	Unindexed bool // the namespace has no search attributes of ours

	unreported atomic.Bool // Temporal does not report tasks that fail
}

// Find looks at the workflows that a search gives, and at suspects, which are
// workflow ids. It asks Temporal a bounded number of times; what it leaves out of
// a large number is told as far as the search tells it.
func (t *Troubles) Find(ctx context.Context, suspects []string) ([]Trouble, error) {
	settling, err := t.list(ctx, settlementFailing, t.Unindexed)
	if err != nil {
		return nil, err
	}
	reported, err := t.reported(ctx)
	if err != nil {
		return nil, err
	}
	ids := slices.Concat(reported, settling, suspects)
	slices.Sort(ids)
	ids = slices.Compact(ids)
	slices.SortStableFunc(ids, func(a, b string) int { return rank(a, reported, settling) - rank(b, reported, settling) })

	found := make([]*Trouble, len(ids))
	group, groupCtx := errgroup.WithContext(ctx)
	group.SetLimit(describesAtOnce)
	for i, id := range ids {
		listed := slices.Contains(settling, id)
		if listed {
			found[i] = &Trouble{WorkflowID: id, Reason: earmark.StuckSettlementFailing}
		}
		if i >= maxDescribed {
			continue
		}
		group.Go(func() error {
			trouble, err := t.look(groupCtx, id, listed)
			if err == nil {
				found[i] = trouble
			}
			return err
		})
	}
	if err := group.Wait(); err != nil {
		return nil, err
	}
	var troubles []Trouble
	for _, trouble := range found {
		if trouble != nil {
			troubles = append(troubles, *trouble)
		}
	}
	return troubles, nil
}

// rank puts those first of which something is known.
func rank(id string, reported, settling []string) int {
	switch {
	case slices.Contains(reported, id):
		return 0
	case slices.Contains(settling, id):
		return 1
	}
	return 2
}

// reported lists workflows whose tasks fail, where Temporal reports them.
func (t *Troubles) reported(ctx context.Context) ([]string, error) {
	ids, err := t.list(ctx, taskFailing, t.unreported.Load())
	var unknown *serviceerror.InvalidArgument
	if errors.As(err, &unknown) {
		t.unreported.Store(true)
		return nil, nil
	}
	return ids, err
}

func (t *Troubles) list(ctx context.Context, query string, skip bool) ([]string, error) {
	if skip {
		return nil, nil
	}
	answer, err := t.Client.ListWorkflow(ctx, &workflowservice.ListWorkflowExecutionsRequest{Namespace: t.Namespace, PageSize: maxListed, Query: query})
	if err != nil {
		return nil, err
	}
	var ids []string
	for _, execution := range answer.GetExecutions() {
		ids = append(ids, execution.GetExecution().GetWorkflowId())
	}
	return ids, nil
}

// look describes one workflow. It is nil when that gets on.
func (t *Troubles) look(ctx context.Context, workflowID string, listed bool) (*Trouble, error) {
	description, err := t.Client.DescribeWorkflowExecution(ctx, workflowID, "")
	var notFound *serviceerror.NotFound
	missing := errors.As(err, &notFound)
	if err != nil && !missing {
		return nil, err
	}
	if missing || !activities.IsOpen(description.GetWorkflowExecutionInfo().GetStatus()) {
		if listed { // it has closed since
			return nil, nil
		}
		return &Trouble{WorkflowID: workflowID, Reason: earmark.StuckOrphan}, nil
	}
	if task := description.GetPendingWorkflowTask(); task.GetAttempt() > 1 {
		trouble := &Trouble{WorkflowID: workflowID, Reason: earmark.StuckTaskFailing, Since: timeOf(task.GetOriginalScheduledTime())}
		trouble.Detail, err = t.taskFailure(ctx, workflowID)
		return trouble, err
	}
	for _, activity := range description.GetPendingActivities() {
		if activity.GetAttempt() < failingTries && !listed {
			continue
		}
		since, err := t.begun(ctx, workflowID, activity.GetActivityId())
		return &Trouble{WorkflowID: workflowID, Reason: earmark.StuckSettlementFailing, Since: since, Detail: failureWords(activity.GetLastFailure())}, err
	}
	if listed { // between two tries, or it got on just now
		return &Trouble{WorkflowID: workflowID, Reason: earmark.StuckSettlementFailing}, nil
	}
	return nil, nil
}

// taskFailure is why the workflow's task fails. Only the first failure of a row is
// in the history.
func (t *Troubles) taskFailure(ctx context.Context, workflowID string) (string, error) {
	var words string
	err := t.eachOfLast(ctx, workflowID, func(event *historypb.HistoryEvent) bool {
		switch {
		case event.GetWorkflowTaskFailedEventAttributes() != nil:
			words = failureWords(event.GetWorkflowTaskFailedEventAttributes().GetFailure())
		case event.GetWorkflowTaskTimedOutEventAttributes().GetTimeoutType() == enumspb.TIMEOUT_TYPE_START_TO_CLOSE:
			words = "a worker took the task and did not finish it in time"
		}
		return words != ""
	})
	return words, err
}

// begun is when the activity was scheduled: its retries leave no events.
func (t *Troubles) begun(ctx context.Context, workflowID, activityID string) (at *time.Time, err error) {
	err = t.eachOfLast(ctx, workflowID, func(event *historypb.HistoryEvent) bool {
		if event.GetActivityTaskScheduledEventAttributes().GetActivityId() != activityID {
			return false
		}
		at = timeOf(event.GetEventTime())
		return true
	})
	return at, err
}

// eachOfLast goes through the last events, the newest first, until found is true.
func (t *Troubles) eachOfLast(ctx context.Context, workflowID string, found func(*historypb.HistoryEvent) bool) error {
	answer, err := t.Client.WorkflowService().GetWorkflowExecutionHistoryReverse(ctx, &workflowservice.GetWorkflowExecutionHistoryReverseRequest{
		Namespace: t.Namespace, Execution: execution(workflowID), MaximumPageSize: lastEvents,
	})
	if err != nil {
		return ignoreNotFound(err)
	}
	for _, event := range answer.GetHistory().GetEvents() {
		if found(event) {
			break
		}
	}
	return nil
}

// Lost describes a reservation that Postgres has lost as its workflow knows it. It
// needs no worker: the workflow's input is its first event.
func (t *Troubles) Lost(ctx context.Context, tenant, workflowID string) (*earmark.Reservation, error) {
	answer, err := t.Client.WorkflowService().GetWorkflowExecutionHistory(ctx, &workflowservice.GetWorkflowExecutionHistoryRequest{
		Namespace: t.Namespace, Execution: execution(workflowID), MaximumPageSize: 1,
	})
	if err != nil {
		return nil, ignoreNotFound(err)
	}
	events := answer.GetHistory().GetEvents()
	if len(events) == 0 {
		return nil, nil
	}
	var input ReservationInput
	if err := converter.GetDefaultDataConverter().FromPayloads(events[0].GetWorkflowExecutionStartedEventAttributes().GetInput(), &input); err != nil {
		return nil, fmt.Errorf("the input of %s does not decode: %w", workflowID, err)
	}
	if input.Admission.Tenant != tenant {
		return nil, nil
	}
	request, at := input.Admission.Request, events[0].GetEventTime().AsTime()
	expires := at.Add(request.TTL())
	return &earmark.Reservation{
		ID: input.Admission.ID, State: earmark.StateHeld, Scopes: request.Scopes, Amounts: request.Amounts, Metadata: request.Metadata,
		CreatedAt: at, ExpiresAt: &expires, OnExpiry: request.OnExpiry, WorkflowID: workflowID, Lost: true,
	}, nil
}

// Searches are the queries that find in Temporal UI what is stuck, as of now.
func (t *Troubles) Searches(now time.Time) []earmark.Search {
	if t.Unindexed {
		return []earmark.Search{}
	}
	searches := []earmark.Search{
		{Title: "overdue", Query: fmt.Sprintf(overdueReservation, now.UTC().Format(time.RFC3339))},
		{Title: "in review", Query: inReview},
		{Title: "settlement keeps failing", Query: settlementFailing},
	}
	if !t.unreported.Load() {
		searches = append(searches, earmark.Search{Title: "task failing", Query: taskFailing})
	}
	return searches
}

// failureWords is the failure's message and its causes', cut to what fits a line.
func failureWords(failure *failurepb.Failure) string {
	var words []string
	for ; failure != nil; failure = failure.GetCause() {
		m := failure.GetMessage()
		told := func(word string) bool { return strings.Contains(word, m) } // an error's text has its causes' in it
		if !slices.ContainsFunc(words, told) {
			words = append(words, m)
		}
	}
	text := strings.Join(strings.Fields(strings.Join(words, ": ")), " ")
	if len(text) > maxDetailBytes {
		text = strings.ToValidUTF8(text[:maxDetailBytes], "") + "…"
	}
	return text
}

func ignoreNotFound(err error) error {
	var notFound *serviceerror.NotFound
	if errors.As(err, &notFound) {
		return nil
	}
	return err
}

func execution(workflowID string) *commonpb.WorkflowExecution {
	return &commonpb.WorkflowExecution{WorkflowId: workflowID}
}

func timeOf(stamp *timestamppb.Timestamp) *time.Time {
	if stamp == nil {
		return nil
	}
	at := stamp.AsTime()
	return &at
}
