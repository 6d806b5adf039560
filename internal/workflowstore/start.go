package workflowstore

import (
	"cmp"
	"slices"
	"strings"
	"time"

	enumspb "go.temporal.io/api/enums/v1"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/temporal"

	"github.com/earmark-dev/earmark"
	"github.com/earmark-dev/earmark/workflows"
	"github.com/earmark-dev/earmark/workflows/card"
)

// workflowTaskTimeout is how soon the task of a killed process runs in another one. It is
// above the time that the task's local activities may take.
const workflowTaskTimeout = 5 * time.Second

// StartOptions returns the options of every Reservation workflow. They have no execution or
// run time-out, because those end a workflow without its cleanup. Postgres, not Temporal,
// decides whether an id is new; so the id of a closed workflow may be used again, and a
// start attaches to an open one.
func StartOptions(admission earmark.Admission, expiresAt time.Time, prefix workflows.Prefix, unindexed bool) client.StartWorkflowOptions {
	options := client.StartWorkflowOptions{
		ID:                       admission.WorkflowID,
		TaskQueue:                prefix.TaskQueue(),
		WorkflowIDConflictPolicy: enumspb.WORKFLOW_ID_CONFLICT_POLICY_USE_EXISTING,
		WorkflowIDReusePolicy:    enumspb.WORKFLOW_ID_REUSE_POLICY_ALLOW_DUPLICATE,
		WorkflowTaskTimeout:      workflowTaskTimeout, // mutation: no-run-timeout
		StaticSummary:            card.Summary(admission.Request),
		StaticDetails:            card.Details(admission.ID, admission.Request),
	}
	if !unindexed { // who keeps scopes out of Temporal keeps tenants out, too. A tenant's id fits the 64 bytes of a fairness key
		options.Priority.FairnessKey = admission.Tenant // mutation: fairness-key
		options.TypedSearchAttributes = temporal.NewSearchAttributes(
			workflows.AttributeTenant.ValueSet(admission.Tenant), workflows.AttributeScope.ValueSet(indexedScopes(admission.Request.Scopes)), workflows.AttributeExpiresAt.ValueSet(expiresAt))
	}
	return options
}

// maxScopesIndexed bounds the attribute of scopes, in bytes of the JSON that Temporal
// stores. Temporal refuses to start a workflow if one attribute has more than 2,048 bytes.
const maxScopesIndexed = 2_000

// indexedScopes returns the scopes and all scopes above them, so that a search for one
// finds the holds under it. The shortest come first; the longest are left out if all
// together exceed maxScopesIndexed.
func indexedScopes(scopes []string) []string {
	var all []string
	for _, scope := range scopes {
		all = append(all, earmark.ScopePaths(scope)...)
	}
	slices.SortFunc(all, func(a, b string) int { return cmp.Or(cmp.Compare(len(a), len(b)), strings.Compare(a, b)) })
	all = slices.Compact(all)
	size := len("[]")
	for i, path := range all {
		size += len(path) + len(`"",`) // JSON escapes no character of a scope
		if size > maxScopesIndexed {   // mutation: scopes-indexed
			return all[:i]
		}
	}
	return all
}
