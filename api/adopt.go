package api

import (
	"context"
	"time"

	"github.com/gin-gonic/gin"

	"github.com/earmark-dev/earmark"
)

type adoptBody struct {
	Operator string `json:"operator"`
	Reason   string `json:"reason"`
}

// adopt starts a workflow for an open reservation that lost its own. A reservation with an
// open workflow keeps it, and no journal entry is written.
func (s *server) adopt(c *gin.Context) error {
	settlement, err := settlementOf(c)
	if err != nil {
		return err
	}
	var body adoptBody
	if err := decodeOptionalBody(c, &body); err != nil {
		return err
	}
	if _, err := s.sign(c, &settlement, body.Operator, body.Reason); err != nil {
		return err
	}
	started := time.Now()
	result, err := s.adoption(c.Request.Context(), settlement)
	s.metrics.settlement("adopt", result.Outcome, false, err, time.Since(started))
	return s.answerSettlement(c, settlement.ID, result, false, err)
}

func (s *server) adoption(ctx context.Context, settlement earmark.Transition) (result earmark.Result, err error) {
	check, err := s.ledger.Check(ctx, settlement.Tenant, settlement.ID)
	if err != nil {
		return result, err
	}
	if check == nil {
		return earmark.Result{Outcome: earmark.OutcomeUnknown}, nil
	}
	if check.Open() {
		guarded, err := s.coordinator.Guarded(ctx, check.WorkflowID)
		if err != nil {
			return result, err
		}
		if guarded {
			return s.adopted(ctx, settlement, earmark.OutcomeSame)
		}
	}
	// The journal entry first: without the entry, no workflow starts.
	result, err = s.ledger.Adopt(ctx, settlement)
	if err != nil || !settled(result.Outcome) {
		return result, err
	}
	if err := s.coordinator.Adopt(ctx, *check); err != nil {
		return result, err
	}
	return s.adopted(ctx, settlement, earmark.OutcomeApplied)
}

// adopted returns the reservation with its new workflow, no longer an orphan.
func (s *server) adopted(ctx context.Context, settlement earmark.Transition, outcome earmark.Outcome) (earmark.Result, error) {
	if err := s.ledger.MarkChecked(ctx, settlement.Tenant, settlement.ID, false, false); err != nil {
		return earmark.Result{}, err
	}
	reservation, err := s.ledger.Reservation(ctx, settlement.Tenant, settlement.ID)
	if err != nil || reservation == nil {
		return earmark.Result{Outcome: earmark.OutcomeUnknown}, err
	}
	return earmark.Result{Outcome: outcome, Reservation: reservation}, nil
}
