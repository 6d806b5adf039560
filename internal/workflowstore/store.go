// Package workflowstore starts the workflows of reservations from outside, reads them, and
// finds those that are stuck. Nothing in it runs inside a workflow.
package workflowstore

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	enumspb "go.temporal.io/api/enums/v1"
	"go.temporal.io/api/serviceerror"
	workflowpb "go.temporal.io/api/workflow/v1"
	"go.temporal.io/api/workflowservice/v1"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/converter"

	"github.com/earmark-dev/earmark"
	"github.com/earmark-dev/earmark/activities"
	"github.com/earmark-dev/earmark/workflows"
)

// Store starts and reads the workflows of reservations. Client is required.
type Store struct {
	Client    client.Client
	Prefix    workflows.Prefix
	Unindexed bool
}

// Open returns those of the workflows that Temporal's visibility lists as running.
func (s *Store) Open(ctx context.Context, workflowIDs []string) (map[string]bool, error) {
	quoted := make([]string, 0, len(workflowIDs))
	for _, id := range workflowIDs {
		if !strings.ContainsAny(id, `'"\\`) { // Earmark makes no such id
			quoted = append(quoted, "'"+id+"'")
		}
	}
	open := map[string]bool{}
	if len(quoted) == 0 {
		return open, nil
	}
	page, err := s.Client.ListWorkflow(ctx, &workflowservice.ListWorkflowExecutionsRequest{
		PageSize: int32(len(quoted)), //nolint:gosec // a batch; and an id has one open workflow at most
		Query:    fmt.Sprintf("WorkflowType = '%s' AND ExecutionStatus = 'Running' AND WorkflowId IN (%s)", workflows.ReservationType, strings.Join(quoted, ", ")),
	})
	if err != nil {
		return nil, err
	}
	for _, execution := range page.GetExecutions() {
		open[execution.GetExecution().GetWorkflowId()] = true
	}
	return open, nil
}

// Status describes the latest workflow with that id. It is paused also if one of its activities is.
func (s *Store) Status(ctx context.Context, workflowID string) (enumspb.WorkflowExecutionStatus, error) {
	description, err := s.Client.DescribeWorkflowExecution(ctx, workflowID, "")
	if err != nil {
		return enumspb.WORKFLOW_EXECUTION_STATUS_UNSPECIFIED, err
	}
	status := description.GetWorkflowExecutionInfo().GetStatus()
	if status == enumspb.WORKFLOW_EXECUTION_STATUS_RUNNING && slices.ContainsFunc(description.GetPendingActivities(), (*workflowpb.PendingActivityInfo).GetPaused) {
		return enumspb.WORKFLOW_EXECUTION_STATUS_PAUSED, nil
	}
	return status, nil
}

// Result returns the result of the latest workflow with that id; zero if it is open or
// ended without a result.
func (s *Store) Result(ctx context.Context, workflowID string) (activities.Snapshot, error) {
	history := s.Client.GetWorkflowHistory(ctx, workflowID, "", false, enumspb.HISTORY_EVENT_FILTER_TYPE_CLOSE_EVENT)
	var ended workflows.WorkflowResult
	for history.HasNext() {
		event, err := history.Next()
		if err != nil {
			return activities.Snapshot{}, err
		}
		completed := event.GetWorkflowExecutionCompletedEventAttributes()
		if completed == nil || completed.GetResult() == nil {
			continue
		}
		if err := converter.GetDefaultDataConverter().FromPayloads(completed.GetResult(), &ended); err != nil {
			return activities.Snapshot{}, err
		}
	}
	return ended.Snapshot, nil
}

// Refresh makes the workflow read the ledger.
func (s *Store) Refresh(ctx context.Context, workflowID string) error {
	return s.Client.SignalWorkflow(ctx, workflowID, "", workflows.SignalRefresh, nil)
}

// Paused returns the ids of the reservations whose workflow is paused, or one of its activities; none if Temporal
// cannot pause.
func (s *Store) Paused(ctx context.Context) ([]string, error) {
	var paused []string
	for _, query := range []string{pausedWorkflows, pausedActivities} {
		ids, _, err := listIDs(ctx, s.Client, s.Prefix, query)
		var refused *serviceerror.InvalidArgument
		if errors.As(err, &refused) {
			continue
		} else if err != nil {
			return nil, err
		}
		for _, id := range ids {
			paused = append(paused, s.Prefix.ReservationOf(id))
		}
	}
	return paused, nil
}

// unpauseIdentity is the name that Temporal UI shows.
const unpauseIdentity = "earmark-reconciler"

// Unpause lets a paused workflow, and its paused activities, continue; it has no effect on what runs.
func (s *Store) Unpause(ctx context.Context, namespace, workflowID, reason string) error {
	description, err := s.Client.DescribeWorkflowExecution(ctx, workflowID, "")
	if err != nil {
		return err
	}
	if description.GetWorkflowExecutionInfo().GetStatus() == enumspb.WORKFLOW_EXECUTION_STATUS_PAUSED {
		_, err := s.Client.WorkflowService().UnpauseWorkflowExecution(ctx, &workflowservice.UnpauseWorkflowExecutionRequest{
			Namespace: namespace, WorkflowId: workflowID, Identity: unpauseIdentity, Reason: reason,
		})
		var notPaused *serviceerror.FailedPrecondition
		if err != nil && !errors.As(err, &notPaused) {
			return err
		}
	}
	for _, activity := range description.GetPendingActivities() {
		if !activity.GetPaused() { // mutation: unpause-activity
			continue
		}
		_, err := s.Client.WorkflowService().UnpauseActivity(ctx, &workflowservice.UnpauseActivityRequest{
			Namespace: namespace, Execution: execution(workflowID), Identity: unpauseIdentity,
			Activity: &workflowservice.UnpauseActivityRequest_Id{Id: activity.GetActivityId()},
		})
		if err := ignoreNotFound(err); err != nil { // it may have ended
			return err
		}
	}
	return nil
}

// Adopt starts a workflow for an existing reservation; it succeeds too if one is already
// open.
func (s *Store) Adopt(ctx context.Context, check earmark.Check) error {
	input := workflows.ReservationInput{Adopt: true, Unindexed: s.Unindexed, Admission: earmark.Admission{
		ID: check.ID, Tenant: check.Tenant, Request: check.Request, RequestHash: check.RequestHash, WorkflowID: check.WorkflowID}}
	options := StartOptions(input.Admission, check.ExpiresAt, s.Prefix, s.Unindexed)
	_, err := s.Client.ExecuteWorkflow(ctx, options, workflows.ReservationType, input)
	var started *serviceerror.WorkflowExecutionAlreadyStarted
	if errors.As(err, &started) {
		return nil
	}
	return err
}
