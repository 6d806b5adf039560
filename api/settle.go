package api

import (
	"cmp"
	"context"
	"net/http"
	"time"

	"github.com/gin-gonic/gin"

	"github.com/earmark-dev/earmark"
)

// accepted is the body of a 202: Temporal keeps the settlement durably, and the workflow
// applies it when Postgres is back.
type accepted struct {
	ID       string `json:"id"`
	Accepted bool   `json:"accepted"`
}

// Each body takes an operator: the name of a person who settles in the caller's place. The
// journal entries name them.
type commitBody struct {
	Usage            earmark.Amounts `json:"usage"`
	earmark.Response                 // in the place of Usage
	Estimated        bool            `json:"estimated"`
	Operator         string          `json:"operator"`
	Reason           string          `json:"reason"`
}

type releaseBody struct {
	Reason   string `json:"reason"`
	Operator string `json:"operator"`
}

type extendBody struct {
	TTLSeconds int64  `json:"ttl_seconds"`
	Operator   string `json:"operator"`
	Reason     string `json:"reason"`
}

func (s *server) commit(c *gin.Context) error {
	settlement, err := settlementOf(c)
	if err != nil {
		return err
	}
	var body commitBody
	if err := decodeBody(c, &body); err != nil {
		return err
	}
	if err := earmark.ValidateSpent("usage", body.Usage, body.Response); err != nil {
		return err
	}
	settlement.Estimated = body.Estimated
	known, err := s.sign(c, &settlement, body.Operator, body.Reason)
	if err != nil {
		return err
	}
	if body.Given() {
		if body.Usage, err = s.usageOf(c.Request.Context(), &settlement, known, body.Response); err != nil {
			return err
		}
	}
	started := time.Now()
	result, taken, err := s.coordinator.Commit(c.Request.Context(), settlement, body.Usage)
	s.metrics.settlement("commit", result.Outcome, taken, err, time.Since(started))
	return s.answerSettlement(c, settlement.ID, result, taken, err)
}

func (s *server) release(c *gin.Context) error {
	settlement, err := settlementOf(c)
	if err != nil {
		return err
	}
	var body releaseBody
	if err := decodeOptionalBody(c, &body); err != nil {
		return err
	}
	if _, err := s.sign(c, &settlement, body.Operator, body.Reason); err != nil {
		return err
	}
	started := time.Now()
	result, taken, err := s.coordinator.Release(c.Request.Context(), settlement)
	s.metrics.settlement("release", result.Outcome, taken, err, time.Since(started))
	return s.answerSettlement(c, settlement.ID, result, taken, err)
}

func (s *server) extend(c *gin.Context) error {
	settlement, err := settlementOf(c)
	if err != nil {
		return err
	}
	var body extendBody
	if err := decodeBody(c, &body); err != nil {
		return err
	}
	if err := earmark.ValidateTTL(body.TTLSeconds); err != nil {
		return err
	}
	if _, err := s.sign(c, &settlement, body.Operator, body.Reason); err != nil {
		return err
	}
	started := time.Now()
	result, err := s.coordinator.Extend(c.Request.Context(), settlement, time.Duration(body.TTLSeconds)*time.Second)
	s.metrics.settlement("extend", result.Outcome, false, err, time.Since(started))
	return s.answerSettlement(c, settlement.ID, result, false, err)
}

// sign sets the actor and the reason of a settlement, and refuses an actor that may not
// settle. operator is empty if the caller settles; a person needs the role operate. It returns the reservation if it
// read it: only for a key that is bound to scopes, and otherwise nil.
func (s *server) sign(c *gin.Context, settlement *earmark.Transition, operator, reason string) (*earmark.Reservation, error) {
	by := callerOf(c)
	settlement.Reason = reason
	if operator != "" {
		settlement.Actor = by.operator(operator)
		if err := cmp.Or(earmark.ValidateOperator(operator), by.needs(earmark.RoleOperate)); err != nil {
			return nil, err
		}
	}
	if err := earmark.ValidateReason(reason); err != nil || !by.bound() {
		return nil, err
	}
	reservation, err := s.existingReservation(c.Request.Context(), settlement)
	if err != nil {
		return nil, err
	}
	if !by.coversAll(reservation.Scopes) { // mutation: bound-key
		return nil, noReservationWithID(settlement.ID)
	}
	return reservation, nil
}

// existingReservation is reservationAnywhere with an error if there is none.
func (s *server) existingReservation(ctx context.Context, settlement *earmark.Transition) (*earmark.Reservation, error) {
	reservation, err := s.reservationAnywhere(ctx, settlement.Tenant, settlement.ID)
	switch {
	case err != nil:
		return nil, withReservationID(err, settlement.ID)
	case reservation == nil:
		return nil, noReservationWithID(settlement.ID)
	}
	return reservation, nil
}

// reservationAnywhere returns a reservation; nil if there is none. If Postgres is away or has
// lost it, Temporal knows what it was admitted with.
func (s *server) reservationAnywhere(ctx context.Context, tenant, id string) (*earmark.Reservation, error) {
	reading, cancel := context.WithTimeout(ctx, s.preflightTimeout)
	defer cancel()
	reservation, err := s.ledger.Reservation(reading, tenant, id)
	if reservation == nil && s.lookout.finder != nil {
		lost, lostErr := s.lookout.finder.Lost(ctx, tenant, s.prefix.ReservationWorkflowID(id))
		if lostErr != nil && err == nil {
			err = earmark.Errorf(earmark.CodeUnavailable, "Postgres does not have the reservation, and Temporal did not answer whether a workflow has it: %w", lostErr)
		}
		if lost != nil {
			reservation, err = lost, nil
		}
	}
	return reservation, err
}

func settlementOf(c *gin.Context) (earmark.Transition, error) {
	id, err := reservationID(c)
	return earmark.Transition{ID: id, Tenant: callerOf(c).tenant, Actor: callerOf(c).actor()}, err
}

func (s *server) answerSettlement(c *gin.Context, id string, result earmark.Result, taken bool, err error) error {
	switch {
	case err != nil:
		return withReservationID(err, id)
	case taken:
		c.Header("Location", "/v1/reservations/"+id)
		return answer(c, http.StatusAccepted, accepted{ID: id, Accepted: true})
	case result.Reservation != nil && settled(result.Outcome):
		return answer(c, http.StatusOK, s.show(result.Reservation))
	}
	return notSettled(id, result)
}

func settled(outcome earmark.Outcome) bool {
	return outcome == earmark.OutcomeApplied || outcome == earmark.OutcomeSame
}

// notSettled turns the outcome of a commit, release or extension that changed nothing into
// an error.
func notSettled(id string, result earmark.Result) error {
	switch result.Outcome {
	case earmark.OutcomeUnknown:
		return noReservationWithID(id)
	case earmark.OutcomeConflict:
		return conflict(result.Reservation)
	case earmark.OutcomeExpired:
		return conflictError(earmark.CodeReservationExpired, result.Reservation, "the lease of the reservation has run out")
	case earmark.OutcomeOverageRejected:
		return conflictError(earmark.CodeOverageRejected, result.Reservation,
			"the usage is more than was reserved and a budget refuses overage; the usage is noted, and the reservation will wait for an operator")
	case earmark.OutcomeUnitsMismatch:
		return unitsMismatch(result)
	case earmark.OutcomeOverflow:
		return overflow("usage", result.Subject)
	default:
		return unexpected(result)
	}
}

func conflict(reservation *earmark.Reservation) error {
	if reservation == nil {
		return earmark.Errorf(earmark.CodeAlreadySettled, "the reservation is settled already")
	}
	if reservation.State == earmark.StateReleased {
		return conflictError(earmark.CodeAlreadySettled, reservation,
			"the reservation is released, which is final; charge usage that was spent nevertheless with POST /v1/usage")
	}
	return conflictError(earmark.CodeAlreadySettled, reservation, "the reservation is %s already", reservation.State)
}

func unitsMismatch(result earmark.Result) error {
	field, allowed := "usage", "exactly the reserved units"
	if result.Subject != "" {
		field += "." + result.Subject
	}
	if result.Reservation != nil {
		allowed += ", " + result.Reservation.Amounts.String() + " here"
	}
	return earmark.Invalidf(field, "usage is given in %s", allowed)
}

// overflow returns the error of rule R8: a sum exceeds int64.
func overflow(field, unit string) error {
	if unit != "" {
		field += "." + unit
	}
	return earmark.Invalidf(field, "is too large: with what is reserved and spent it would pass 9,223,372,036,854,775,807")
}

// conflictError returns an error that shows the reservation's current state.
func conflictError(code earmark.Code, reservation *earmark.Reservation, format string, args ...any) error {
	err := earmark.Errorf(code, format, args...)
	err.Reservation = reservation
	return err
}

// unexpected returns the error for an outcome that the call cannot have, or that lacks its
// reservation: a bug.
func unexpected(result earmark.Result) error {
	return earmark.Errorf(earmark.CodeInternal, "outcome %q with reservation %t is not one of this call", result.Outcome, result.Reservation != nil)
}

// withReservationID adds the reservation's id to an error.
func withReservationID(err error, id string) error {
	known := *asError(err)
	if known.ReservationID == "" {
		known.ReservationID = id
	}
	return &known
}
