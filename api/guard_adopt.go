package api

import (
	"context"

	"github.com/earmark-dev/earmark"
	"github.com/earmark-dev/earmark/activities"
	"github.com/earmark-dev/earmark/workflows"
)

// Guarded reports whether an open workflow guards the reservation.
func (g *TemporalGuard) Guarded(ctx context.Context, workflowID string) (bool, error) {
	status, err := g.guardians().Status(ctx, workflowID)
	switch {
	case isNotFound(err):
		return false, nil
	case err != nil:
		return false, earmark.Errorf(earmark.CodeUnavailable, "Temporal does not tell of the workflow: %w", err)
	}
	return activities.IsOpen(status), nil
}

// Adopt starts a workflow that guards a reservation which exists.
func (g *TemporalGuard) Adopt(ctx context.Context, check earmark.Check) error {
	if err := g.guardians().Adopt(ctx, check); err != nil {
		return earmark.Errorf(earmark.CodeUnavailable, "Temporal did not start the workflow: %w", err)
	}
	return nil
}

func (g *TemporalGuard) guardians() *workflows.Guardians {
	return &workflows.Guardians{Client: g.Client, Unindexed: g.Unindexed}
}
