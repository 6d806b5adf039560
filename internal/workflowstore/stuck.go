package workflowstore

import (
	"cmp"
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
	workflowpb "go.temporal.io/api/workflow/v1"
	"go.temporal.io/api/workflowservice/v1"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/converter"
	"golang.org/x/sync/errgroup"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/earmark-dev/earmark"
	"github.com/earmark-dev/earmark/activities"
	"github.com/earmark-dev/earmark/workflows"
)

// Bounds of one search for stuck workflows, so that the search does not load Temporal.
const (
	listedPerPage   = 500 // workflows in one page
	maxListed       = 10_000
	maxDescribed    = 100
	describesAtOnce = 8
	lastEvents      = 20  // of a history; the failure is among them
	maxDetailBytes  = 500 // of an error in a list
	// failingTries is the number of tries from which an activity counts as failing; the
	// tries before it are quick.
	failingTries = 4
)

// The searches for stuck workflows. Temporal before 1.31 has no attribute for failing
// tasks, so look describes the workflow. Temporal before 1.30 cannot pause a workflow, and before 1.28 no activity.
const (
	openReservations   = "WorkflowType = '" + workflows.ReservationType + "' AND ExecutionStatus = 'Running'"
	settlementFailing  = openReservations + " AND EarmarkState = '" + workflows.StateAttributeSettling + "'"
	inReview           = openReservations + " AND EarmarkState = '" + workflows.StateAttributeReview + "'"
	taskFailing        = openReservations + " AND TemporalReportedProblems IS NOT NULL"
	pausedWorkflows    = "WorkflowType = '" + workflows.ReservationType + "' AND ExecutionStatus = 'Paused'"
	pausedActivities   = openReservations + " AND TemporalPauseInfo IS NOT NULL"
	overdueReservation = openReservations + " AND EarmarkState IS NULL AND EarmarkExpiresAt < '%s'" // the attribute does not follow an extension
)

// StuckWorkflow is a reservation's workflow that makes no progress.
type StuckWorkflow struct {
	WorkflowID string
	Reason     earmark.StuckReason
	Since      *time.Time // nil if it is not known
	Detail     string     // the last error, or who paused it and why
	ActivityID string     // of the paused activity, if it is not the workflow that is paused
}

// Findings are the stuck workflows that one call of Find found.
type Findings struct {
	Workflows []StuckWorkflow
	// Incomplete says what was not checked; empty if everything was.
	Incomplete string
}

// StuckFinder finds the stuck reservations that only Temporal knows.
type StuckFinder struct {
	Client    client.Client
	Namespace string
	Prefix    workflows.Prefix
	Unindexed bool // the namespace has no search attributes of Earmark

	unreported       atomic.Bool // Temporal does not report failing tasks
	neverPaused      atomic.Bool // Temporal does not know the status
	activitiesAlways atomic.Bool // Temporal does not report paused activities
}

// Find describes the workflows of a tenant that the searches return, and suspects, which are
// workflow ids. Without search attributes the searches return those of all tenants. It calls Temporal a bounded number of times. Beyond maxDescribed it reports only the
// search result.
func (f *StuckFinder) Find(ctx context.Context, tenant string, suspects []string) (Findings, error) {
	settling, moreSettling, err := f.list(ctx, settlementFailing+f.oneOf(tenant), f.Unindexed)
	if err != nil {
		return Findings{}, err
	}
	reported, moreReported, err := f.listIfKnown(ctx, taskFailing+f.oneOf(tenant), &f.unreported)
	if err != nil {
		return Findings{}, err
	}
	paused, morePaused, err := f.listIfKnown(ctx, pausedWorkflows+f.oneOf(tenant), &f.neverPaused)
	if err != nil {
		return Findings{}, err
	}
	waiting, moreWaiting, err := f.listIfKnown(ctx, pausedActivities+f.oneOf(tenant), &f.activitiesAlways)
	if err != nil {
		return Findings{}, err
	}
	paused = append(paused, waiting...)
	var findings Findings
	if moreSettling || moreReported || morePaused || moreWaiting {
		findings.Incomplete = fmt.Sprintf("Temporal reports more than %d stuck workflows; the rest of them is not listed", maxListed)
	}
	known := make(map[string]earmark.StuckReason, len(settling)+len(reported)+len(paused))
	for _, id := range settling {
		known[id] = earmark.StuckSettlementFailing
	}
	for _, id := range reported {
		known[id] = earmark.StuckTaskFailing
	}
	for _, id := range paused {
		known[id] = earmark.StuckPaused
	}
	ids := slices.Concat(paused, reported, settling, suspects)
	slices.Sort(ids)
	ids = slices.Compact(ids)
	slices.SortStableFunc(ids, func(a, b string) int { return rank(known[a]) - rank(known[b]) })

	found := make([]*StuckWorkflow, len(ids))
	group, groupCtx := errgroup.WithContext(ctx)
	group.SetLimit(describesAtOnce)
	for i, id := range ids {
		reason, listed := known[id]
		if i >= maxDescribed {
			if listed {
				found[i] = &StuckWorkflow{WorkflowID: id, Reason: reason}
			}
			continue
		}
		group.Go(func() error {
			stuck, err := f.look(groupCtx, id, reason == earmark.StuckSettlementFailing)
			if err == nil {
				found[i] = stuck
			}
			return err
		})
	}
	if err := group.Wait(); err != nil {
		return Findings{}, err
	}
	for _, stuck := range found {
		if stuck != nil {
			findings.Workflows = append(findings.Workflows, *stuck)
		}
	}
	return findings, nil
}

// oneOf restricts a search to a tenant, so that no other tenant's stuck workflows use up its
// bounds. A workflow that was started before the namespace had search attributes has none.
func (f *StuckFinder) oneOf(tenant string) string {
	if f.Unindexed {
		return ""
	}
	return " AND (EarmarkTenant = " + quoted(tenant) + " OR EarmarkTenant IS NULL)" // mutation: stuck-own-tenant
}

// quoted is a text as a query of Temporal has it.
func quoted(text string) string {
	return "'" + strings.NewReplacer(`\`, `\\`, "'", `\'`).Replace(text) + "'"
}

// rank sorts the workflows with a known reason first.
func rank(reason earmark.StuckReason) int {
	switch reason {
	case earmark.StuckPaused:
		return 0
	case earmark.StuckTaskFailing:
		return 1
	case earmark.StuckSettlementFailing:
		return 2
	default:
		return 3
	}
}

// listIfKnown is list for a query that older servers refuse; unknown stores that this
// server does.
func (f *StuckFinder) listIfKnown(ctx context.Context, query string, unknown *atomic.Bool) (ids []string, more bool, err error) {
	ids, more, err = f.list(ctx, query, unknown.Load())
	var refused *serviceerror.InvalidArgument
	if errors.As(err, &refused) {
		unknown.Store(true)
		return nil, false, nil
	}
	return ids, more, err
}

func (f *StuckFinder) list(ctx context.Context, query string, skip bool) (ids []string, more bool, err error) {
	if skip {
		return nil, false, nil
	}
	return listIDs(ctx, f.Client, f.Prefix, query)
}

// own narrows a query to the workflows of one installation. Others may share the namespace and
// the names of the types and attributes.
func own(prefix workflows.Prefix, query string) string {
	return query + " AND TaskQueue = '" + prefix.TaskQueue() + "'" // mutation: own-workflows
}

// listIDs returns the ids of the installation's workflows that a query finds, page by page up to
// maxListed, and whether there are more.
func listIDs(ctx context.Context, c client.Client, prefix workflows.Prefix, query string) (ids []string, more bool, err error) {
	request := &workflowservice.ListWorkflowExecutionsRequest{PageSize: listedPerPage, Query: own(prefix, query)}
	for {
		answer, err := c.ListWorkflow(ctx, request)
		if err != nil {
			return nil, false, err
		}
		for _, execution := range answer.GetExecutions() {
			ids = append(ids, execution.GetExecution().GetWorkflowId())
		}
		request.NextPageToken = answer.GetNextPageToken()
		switch {
		case len(request.NextPageToken) == 0:
			return ids, false, nil
		case len(ids) >= maxListed:
			return ids, true, nil
		}
	}
}

// look describes one workflow. It returns nil if the workflow makes progress.
func (f *StuckFinder) look(ctx context.Context, workflowID string, listed bool) (*StuckWorkflow, error) {
	description, err := f.Client.DescribeWorkflowExecution(ctx, workflowID, "")
	var notFound *serviceerror.NotFound
	missing := errors.As(err, &notFound)
	if err != nil && !missing {
		return nil, err
	}
	if missing || !activities.IsOpen(description.GetWorkflowExecutionInfo().GetStatus()) {
		if listed { // it has closed meanwhile
			return nil, nil
		}
		return &StuckWorkflow{WorkflowID: workflowID, Reason: earmark.StuckOrphan}, nil
	}
	if description.GetWorkflowExecutionInfo().GetStatus() == enumspb.WORKFLOW_EXECUTION_STATUS_PAUSED {
		pause := description.GetWorkflowExtendedInfo().GetPauseInfo()
		return &StuckWorkflow{WorkflowID: workflowID, Reason: earmark.StuckPaused, Since: timeOf(pause.GetPausedTime()), Detail: pausedText(pause)}, nil
	}
	if task := description.GetPendingWorkflowTask(); task.GetAttempt() > 1 {
		stuck := &StuckWorkflow{WorkflowID: workflowID, Reason: earmark.StuckTaskFailing, Since: timeOf(task.GetOriginalScheduledTime())}
		stuck.Detail, err = f.taskFailure(ctx, workflowID)
		return stuck, err
	}
	for _, activity := range description.GetPendingActivities() {
		if activity.GetPaused() {
			return &StuckWorkflow{
				WorkflowID: workflowID, Reason: earmark.StuckPaused, Since: timeOf(activity.GetPauseInfo().GetPauseTime()),
				Detail: pausedActivityText(activity), ActivityID: activity.GetActivityId(),
			}, nil
		}
	}
	for _, activity := range description.GetPendingActivities() {
		if activity.GetAttempt() < failingTries && !listed {
			continue
		}
		since, err := f.begun(ctx, workflowID, activity.GetActivityId())
		return &StuckWorkflow{WorkflowID: workflowID, Reason: earmark.StuckSettlementFailing, Since: since, Detail: failureText(activity.GetLastFailure())}, err
	}
	if listed { // between two tries, or it has just made progress
		return &StuckWorkflow{WorkflowID: workflowID, Reason: earmark.StuckSettlementFailing}, nil
	}
	return nil, nil
}

// taskFailure returns why the workflow's task fails. The history contains only the first of
// several failures in a row.
func (f *StuckFinder) taskFailure(ctx context.Context, workflowID string) (string, error) {
	var text string
	err := f.eachOfLast(ctx, workflowID, func(event *historypb.HistoryEvent) bool {
		switch {
		case event.GetWorkflowTaskFailedEventAttributes() != nil:
			text = failureText(event.GetWorkflowTaskFailedEventAttributes().GetFailure())
		case event.GetWorkflowTaskTimedOutEventAttributes().GetTimeoutType() == enumspb.TIMEOUT_TYPE_START_TO_CLOSE:
			text = "a worker took the task and did not finish it in time"
		}
		return text != ""
	})
	return text, err
}

// begun returns when the activity was scheduled: its retries leave no events.
func (f *StuckFinder) begun(ctx context.Context, workflowID, activityID string) (at *time.Time, err error) {
	err = f.eachOfLast(ctx, workflowID, func(event *historypb.HistoryEvent) bool {
		if event.GetActivityTaskScheduledEventAttributes().GetActivityId() != activityID {
			return false
		}
		at = timeOf(event.GetEventTime())
		return true
	})
	return at, err
}

// eachOfLast reads the last events, newest first, until found returns true.
func (f *StuckFinder) eachOfLast(ctx context.Context, workflowID string, found func(*historypb.HistoryEvent) bool) error {
	answer, err := f.Client.WorkflowService().GetWorkflowExecutionHistoryReverse(ctx, &workflowservice.GetWorkflowExecutionHistoryReverseRequest{
		Namespace: f.Namespace, Execution: execution(workflowID), MaximumPageSize: lastEvents,
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

// Lost describes a reservation that Postgres has lost, from its workflow's first event,
// which is the input. It needs no worker.
func (f *StuckFinder) Lost(ctx context.Context, tenant, workflowID string) (*earmark.Reservation, error) {
	admission, at, err := started(ctx, f.Client, f.Namespace, workflowID)
	if err != nil || admission.Tenant != tenant {
		return nil, err
	}
	request := admission.Request
	expires := at.Add(request.TTL())
	return &earmark.Reservation{
		ID: admission.ID, State: earmark.StateHeld, Scopes: request.Scopes, Amounts: request.Amounts, Metadata: request.Metadata,
		CreatedAt: at, ExpiresAt: &expires, OnExpiry: request.OnExpiry, WorkflowID: workflowID, Lost: true,
	}, nil
}

// TenantOf is the tenant whose reservation the workflow guards; empty where there is no workflow.
func TenantOf(ctx context.Context, c client.Client, namespace, workflowID string) (string, error) {
	admission, _, err := started(ctx, c, namespace, workflowID)
	return admission.Tenant, err
}

// started is what the workflow was started with, and when; zero where there is none.
func started(ctx context.Context, c client.Client, namespace, workflowID string) (admission earmark.Admission, at time.Time, err error) {
	answer, err := c.WorkflowService().GetWorkflowExecutionHistory(ctx, &workflowservice.GetWorkflowExecutionHistoryRequest{
		Namespace: namespace, Execution: execution(workflowID), MaximumPageSize: 1,
	})
	events := answer.GetHistory().GetEvents()
	if err != nil || len(events) == 0 {
		return admission, at, ignoreNotFound(err)
	}
	var input workflows.ReservationInput
	if err := converter.GetDefaultDataConverter().FromPayloads(events[0].GetWorkflowExecutionStartedEventAttributes().GetInput(), &input); err != nil {
		return admission, at, fmt.Errorf("the input of %s does not decode: %w", workflowID, err)
	}
	return input.Admission, events[0].GetEventTime().AsTime(), nil
}

// Searches returns the queries that find a tenant's stuck reservations in Temporal UI, as of
// now.
func (f *StuckFinder) Searches(tenant string, now time.Time) []earmark.Search {
	if f.Unindexed {
		return []earmark.Search{}
	}
	searches := []earmark.Search{
		{Title: "overdue", Query: fmt.Sprintf(overdueReservation, now.UTC().Format(time.RFC3339))},
		{Title: "in review", Query: inReview},
		{Title: "settlement keeps failing", Query: settlementFailing},
	}
	if !f.neverPaused.Load() {
		searches = append(searches, earmark.Search{Title: "paused", Query: pausedWorkflows})
	}
	if !f.activitiesAlways.Load() {
		searches = append(searches, earmark.Search{Title: "activity paused", Query: pausedActivities})
	}
	if !f.unreported.Load() {
		searches = append(searches, earmark.Search{Title: "task failing", Query: taskFailing})
	}
	for i := range searches {
		searches[i].Query = own(f.Prefix, searches[i].Query+" AND EarmarkTenant = "+quoted(tenant))
	}
	return searches
}

// pausedText returns who paused a workflow and why.
func pausedText(pause *workflowpb.WorkflowExecutionPauseInfo) string {
	return inOneLine(byAndWhy("paused", pause.GetIdentity(), pause.GetReason()))
}

// pausedActivityText returns which activity is paused, by whom and why, and why it was tried again.
func pausedActivityText(activity *workflowpb.PendingActivityInfo) string {
	manual, rule := activity.GetPauseInfo().GetManual(), activity.GetPauseInfo().GetRule()
	text := byAndWhy("activity "+activity.GetActivityType().GetName()+" paused", cmp.Or(manual.GetIdentity(), rule.GetIdentity()), cmp.Or(manual.GetReason(), rule.GetReason()))
	if failure := failureText(activity.GetLastFailure()); failure != "" {
		text += "; its last error: " + failure
	}
	return inOneLine(text)
}

func byAndWhy(what, by, why string) string {
	if by != "" {
		what += " by " + by
	}
	if why != "" {
		what += ": " + why
	}
	return what
}

// failureText returns the messages of the failure and its causes, cut to fit one line.
func failureText(failure *failurepb.Failure) string {
	var messages []string
	for ; failure != nil; failure = failure.GetCause() {
		m := failure.GetMessage()
		repeats := func(message string) bool { return strings.Contains(message, m) } // an error's text contains its causes
		if !slices.ContainsFunc(messages, repeats) {
			messages = append(messages, m)
		}
	}
	return inOneLine(strings.Join(messages, ": "))
}

// inOneLine returns the text without line breaks, cut to maxDetailBytes.
func inOneLine(text string) string {
	text = strings.Join(strings.Fields(text), " ")
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
