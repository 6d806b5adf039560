package bench

import (
	"context"
	"errors"

	enumspb "go.temporal.io/api/enums/v1"

	"github.com/earmark-dev/earmark"
	"github.com/earmark-dev/earmark/workflows"
)

const useExisting = enumspb.WORKFLOW_ID_CONFLICT_POLICY_USE_EXISTING

// reserve returns how to reserve over HTTP, on the budget that scope names.
func (d *deployment) reserve(scope func(n int64) string) func(context.Context, int64) (string, error) {
	return func(ctx context.Context, n int64) (string, error) {
		r, err := d.api.Reserve(ctx, "", request(scope(n), unitAmount))
		if err != nil {
			return "", err
		}
		return r.ID, nil
	}
}

var errAccepted = errors.New("the commit was only accepted: the ledger did not answer")

// commit settles over HTTP.
func (d *deployment) commit(ctx context.Context, id string) error {
	settled, err := d.api.Commit(ctx, id, earmark.Amounts{unit: unitUsage})
	if err == nil && settled.Accepted {
		return errAccepted
	}
	return err
}

// signalCommit settles by a signal straight to the workflow.
func (d *deployment) signalCommit(ctx context.Context, id string) error {
	message := workflows.CommitMessage{Usage: earmark.Amounts{unit: unitUsage}}
	return d.temporal.SignalWorkflow(ctx, workflows.Prefix("").ReservationWorkflowID(id), "", workflows.MessageCommit, message)
}

func (d *deployment) byHTTP(key, title string, scope func(n int64) string) *way {
	return &way{key: key, title: title, on: d, admit: d.reserve(scope), settle: d.commit, workflowID: workflows.Prefix("").ReservationWorkflowID}
}

func (d *deployment) bySignal(key, title string) *way {
	return &way{key: key, title: title, on: d, admit: d.reserve(scopeOf), settle: d.signalCommit, drained: d.drained, workflowID: workflows.Prefix("").ReservationWorkflowID}
}

func hot(int64) string { return hotScope }
