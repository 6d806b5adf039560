package workflowstore

import (
	"slices"
	"time"

	enumspb "go.temporal.io/api/enums/v1"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/temporal"

	"github.com/earmark-dev/earmark"
	"github.com/earmark-dev/earmark/workflows"
	"github.com/earmark-dev/earmark/workflows/card"
)

// workflowTaskTimeout is how soon the task of a killed process runs elsewhere. It is
// above the time that the task's local activities may take.
const workflowTaskTimeout = 5 * time.Second

// StartOptions are the options that every Reservation workflow starts with. No
// execution or run time-out: those end a workflow without its cleanup. Postgres
// decides whether an id is new, not Temporal, so a closed workflow's id may be
// used again and an open one's is attached to.
func StartOptions(admission earmark.Admission, expiresAt time.Time, unindexed bool) client.StartWorkflowOptions {
	options := client.StartWorkflowOptions{
		ID:                       admission.WorkflowID,
		TaskQueue:                workflows.TaskQueue,
		WorkflowIDConflictPolicy: enumspb.WORKFLOW_ID_CONFLICT_POLICY_USE_EXISTING,
		WorkflowIDReusePolicy:    enumspb.WORKFLOW_ID_REUSE_POLICY_ALLOW_DUPLICATE,
		WorkflowTaskTimeout:      workflowTaskTimeout, // mutation: no-run-timeout
		StaticSummary:            card.Summary(admission.Request),
		StaticDetails:            card.Details(admission.ID, admission.Request),
	}
	if !unindexed {
		options.TypedSearchAttributes = temporal.NewSearchAttributes(
			workflows.AttributeTenant.ValueSet(admission.Tenant), workflows.AttributeScope.ValueSet(paths(admission.Request.Scopes)), workflows.AttributeExpiresAt.ValueSet(expiresAt))
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
