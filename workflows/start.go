package workflows

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	enumspb "go.temporal.io/api/enums/v1"
	"go.temporal.io/api/serviceerror"
	"go.temporal.io/api/workflowservice/v1"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/converter"
	"go.temporal.io/sdk/temporal"

	"github.com/earmark-dev/earmark"
	"github.com/earmark-dev/earmark/activities"
)

// workflowTaskTimeout is how soon the task of a killed process runs elsewhere. It is
// above momentInAll, which the task's local activities may take.
const workflowTaskTimeout = 5 * time.Second

// StartOptions are the options that every Reservation workflow starts with. No
// execution or run time-out: those end a workflow without its cleanup. Postgres
// decides whether an id is new, not Temporal, so a closed workflow's id may be
// used again and an open one's is attached to.
func StartOptions(admission earmark.Admission, expiresAt time.Time, unindexed bool) client.StartWorkflowOptions {
	options := client.StartWorkflowOptions{
		ID:                       admission.WorkflowID,
		TaskQueue:                TaskQueue,
		WorkflowIDConflictPolicy: enumspb.WORKFLOW_ID_CONFLICT_POLICY_USE_EXISTING,
		WorkflowIDReusePolicy:    enumspb.WORKFLOW_ID_REUSE_POLICY_ALLOW_DUPLICATE,
		WorkflowTaskTimeout:      workflowTaskTimeout, // mutation: no-run-timeout
		StaticSummary:            Summary(admission.Request),
		StaticDetails:            Details(admission.ID, admission.Request),
	}
	if !unindexed {
		options.TypedSearchAttributes = temporal.NewSearchAttributes(
			AttributeTenant.ValueSet(admission.Tenant), AttributeScope.ValueSet(paths(admission.Request.Scopes)), AttributeExpiresAt.ValueSet(expiresAt))
	}
	return options
}

// paths lists the scopes and all above them, so that a search for one finds what is
// held under it.
func paths(scopes []string) []string {
	var all []string
	for _, scope := range scopes {
		all = append(all, earmark.ScopePaths(scope)...)
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// Guardians looks after the workflows of reservations, for the reconciler.
type Guardians struct {
	Client    client.Client
	Unindexed bool
}

// Open lists those of the workflows that Temporal's visibility has as running.
func (g *Guardians) Open(ctx context.Context, workflowIDs []string) (map[string]bool, error) {
	quoted := make([]string, 0, len(workflowIDs))
	for _, id := range workflowIDs {
		if !strings.ContainsAny(id, `'"\\`) { // none that the product made
			quoted = append(quoted, "'"+id+"'")
		}
	}
	open := map[string]bool{}
	if len(quoted) == 0 {
		return open, nil
	}
	page, err := g.Client.ListWorkflow(ctx, &workflowservice.ListWorkflowExecutionsRequest{
		PageSize: int32(len(quoted)), //nolint:gosec // a batch; and an id has one open workflow at most
		Query:    fmt.Sprintf("WorkflowType = '%s' AND ExecutionStatus = 'Running' AND WorkflowId IN (%s)", ReservationType, strings.Join(quoted, ", ")),
	})
	if err != nil {
		return nil, err
	}
	for _, execution := range page.GetExecutions() {
		open[execution.GetExecution().GetWorkflowId()] = true
	}
	return open, nil
}

// Status describes the latest workflow of that id.
func (g *Guardians) Status(ctx context.Context, workflowID string) (enumspb.WorkflowExecutionStatus, error) {
	description, err := g.Client.DescribeWorkflowExecution(ctx, workflowID, "")
	if err != nil {
		return enumspb.WORKFLOW_EXECUTION_STATUS_UNSPECIFIED, err
	}
	return description.GetWorkflowExecutionInfo().GetStatus(), nil
}

// Ending is the result of the latest workflow of that id; zero while it is open and
// when it ended without one.
func (g *Guardians) Ending(ctx context.Context, workflowID string) (activities.Standing, error) {
	history := g.Client.GetWorkflowHistory(ctx, workflowID, "", false, enumspb.HISTORY_EVENT_FILTER_TYPE_CLOSE_EVENT)
	var ending Ending
	for history.HasNext() {
		event, err := history.Next()
		if err != nil {
			return activities.Standing{}, err
		}
		completed := event.GetWorkflowExecutionCompletedEventAttributes()
		if completed == nil || completed.GetResult() == nil {
			continue
		}
		if err := converter.GetDefaultDataConverter().FromPayloads(completed.GetResult(), &ending); err != nil {
			return activities.Standing{}, err
		}
	}
	return ending.Standing, nil
}

// Refresh tells the workflow to look at the ledger.
func (g *Guardians) Refresh(ctx context.Context, workflowID string) error {
	return g.Client.SignalWorkflow(ctx, workflowID, "", SignalRefresh, nil)
}

// Adopt starts a workflow for a reservation that exists; one that is open already
// is as good.
func (g *Guardians) Adopt(ctx context.Context, check earmark.Check) error {
	input := ReservationInput{Adopt: true, Unindexed: g.Unindexed, Admission: earmark.Admission{
		ID: check.ID, Tenant: check.Tenant, Request: check.Request, RequestHash: check.RequestHash, WorkflowID: check.WorkflowID}}
	options := StartOptions(input.Admission, check.ExpiresAt, g.Unindexed)
	_, err := g.Client.ExecuteWorkflow(ctx, options, ReservationType, input)
	var started *serviceerror.WorkflowExecutionAlreadyStarted
	if errors.As(err, &started) {
		return nil
	}
	return err
}
