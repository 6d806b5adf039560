package api

import (
	"net/http"
	"time"

	"github.com/gin-gonic/gin"

	"github.com/earmark-dev/earmark"
)

// correct changes a final charge. It requires a key, because a repeated correction would count twice. It
// goes to the ledger alone: no workflow is open after a final charge.
func (s *server) correct(c *gin.Context) error {
	settlement, err := settlementOf(c)
	if err != nil {
		return err
	}
	key, err := idempotencyKey(c)
	switch {
	case err != nil:
		return err
	case key == "":
		return earmark.Invalidf(idempotencyKeyHeader, "is missing; give a key of 1 to %d printable ASCII characters that names this correction", earmark.MaxIdempotencyKey)
	}
	var request earmark.CorrectionRequest
	if err := decodeBody(c, &request); err != nil {
		return err
	}
	if err := request.Validate(); err != nil {
		return err
	}
	if _, err := s.sign(c, &settlement, request.Operator, request.Reason); err != nil {
		return err
	}
	correction := earmark.Correction{
		ID: earmark.CorrectionID(settlement.ID, key), ReservationID: settlement.ID, Tenant: settlement.Tenant, Request: request, Actor: settlement.Actor,
	}
	started := time.Now()
	result, err := inQueue(c.Request.Context(), s.queues.charges, callerOf(c).turn(), func() (earmark.Result, error) {
		return s.ledger.Correct(c.Request.Context(), correction)
	})
	s.metrics.settlement("correct", result.Outcome, false, err, time.Since(started))
	switch {
	case err != nil:
		return withReservationID(err, settlement.ID)
	case result.Reservation == nil || !settled(result.Outcome):
		return notCorrected(settlement.ID, request, result)
	}
	shown := s.show(result.Reservation)
	if result.Outcome == earmark.OutcomeSame {
		c.Header(idempotencyHitHeader, "true")
		shown.Replayed = true
	}
	return answer(c, http.StatusOK, shown)
}

// notCorrected turns the outcome of a correction that changed nothing into an error.
func notCorrected(id string, request earmark.CorrectionRequest, result earmark.Result) error {
	switch result.Outcome {
	case earmark.OutcomeUnknown:
		return noReservationWithID(id)
	case earmark.OutcomeMismatch:
		err := earmark.Errorf(earmark.CodeIdempotencyMismatch, "was used for another correction of this reservation; use a new key, or send the same body")
		err.Field, err.ReservationID = idempotencyKeyHeader, id
		return err
	case earmark.OutcomeOverflow:
		return overflow("amounts", result.Subject)
	case earmark.OutcomeConflict, earmark.OutcomeUnitsMismatch, earmark.OutcomeBelowZero:
		if result.Reservation == nil {
			return unexpected(result)
		}
	default:
		return unexpected(result)
	}
	reservation, unit := result.Reservation, result.Subject
	switch result.Outcome {
	case earmark.OutcomeUnitsMismatch:
		return earmark.Invalidf("amounts."+unit, "is not a unit of the reservation; it has %s", reservation.Amounts)
	case earmark.OutcomeBelowZero:
		charged := reservation.CorrectedUsage()[unit]
		err := earmark.Errorf(earmark.CodeBelowZero, "%s gives back more than was charged: %s; at least %s is allowed",
			earmark.FormatAmount(request.Amounts[unit]), earmark.FormatQuantity(charged, unit), earmark.FormatAmount(-charged))
		err.Field, err.Reservation = "amounts."+unit, reservation
		return err
	default:
		return conflictError(earmark.CodeNotCharged, reservation, "%s", withoutFinalCharge(reservation))
	}
}

// withoutFinalCharge says why a reservation cannot be corrected, and which call is right instead.
func withoutFinalCharge(r *earmark.Reservation) string {
	switch {
	case r.Estimated:
		return "the charge is an estimate; commit the real usage, which corrects it"
	case r.State == earmark.StateReleased:
		return "the reservation is released, and nothing was charged; charge usage that was spent nevertheless with POST /v1/usage"
	case r.State == earmark.StateExpired:
		return "the reservation has expired, and nothing was charged; commit the usage"
	default:
		return "the reservation is open, and nothing is charged yet; commit the usage or release it"
	}
}
