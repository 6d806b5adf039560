package lifecycle

import (
	"context"

	"github.com/earmark-dev/earmark"
	"github.com/earmark-dev/earmark/activities"
)

// Guarded reports whether an open workflow guards the reservation.
func (c *Coordinator) Guarded(ctx context.Context, workflowID string) (bool, error) {
	status, err := c.workflows().Status(ctx, workflowID)
	switch {
	case isNotFound(err):
		return false, nil
	case err != nil:
		return false, earmark.Errorf(earmark.CodeUnavailable, "Temporal did not describe the workflow: %w", err)
	}
	return activities.IsOpen(status), nil
}

// Adopt starts a workflow that guards an existing reservation.
func (c *Coordinator) Adopt(ctx context.Context, check earmark.Check) error {
	if err := c.workflows().Adopt(ctx, check); err != nil {
		return earmark.Errorf(earmark.CodeUnavailable, "Temporal did not start the workflow: %w", err)
	}
	return nil
}
