package api

import (
	"cmp"
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/gin-gonic/gin"

	"github.com/earmark-dev/earmark"
)

// reserve answers what one read can decide, and starts a workflow for the rest: only an
// admission needs a workflow.
func (s *server) reserve(c *gin.Context) error {
	if err := noQuery(c); err != nil {
		return err
	}
	subject := subjectOf(c)
	if subject.keyErr != nil {
		return subject.keyErr
	}
	request, err := reservationRequest(c)
	if err != nil {
		return err
	}
	admission := earmark.Admission{
		ID:          subject.reservationID,
		Tenant:      callerOf(c).tenant,
		Request:     request,
		RequestHash: request.Hash(),
		KeyID:       callerOf(c).actor().Key,
	}
	admission.WorkflowID = s.prefix.ReservationWorkflowID(admission.ID)

	started := time.Now()
	result, err := s.admit(c, admission)
	s.metrics.admission(result.Outcome, err, time.Since(started))
	if err == nil && result.Outcome == earmark.OutcomeDenied && result.Decision != nil {
		s.denials.add(c.Request.Context(), admission.Tenant, result.Decision.Violations)
	}
	if err == nil {
		err = s.answerAdmission(c, admission, result, subject.key != "")
	}
	return asEstimates(err, request)
}

func (s *server) admit(c *gin.Context, admission earmark.Admission) (earmark.Result, error) {
	ctx := c.Request.Context()
	if admission.Request.Estimate != nil {
		if decided, err := s.estimated(c, &admission); err != nil || decided.Outcome != "" {
			return decided, err
		}
	}
	preflightCtx, cancel := context.WithTimeout(ctx, s.preflightTimeout)
	defer cancel()
	preflight, err := inQueue(preflightCtx, s.queues.preflights, callerOf(c).turn(admission.Request.Scopes...), func() (earmark.Preflight, error) {
		return s.ledger.Preflight(preflightCtx, admission)
	})
	if err != nil || preflight.Outcome != earmark.OutcomeApplied {
		return preflight.Result, err
	}
	admission.AdmitBy = preflight.Now
	return s.coordinator.Admit(ctx, admission)
}

func (s *server) answerAdmission(c *gin.Context, admission earmark.Admission, result earmark.Result, keyed bool) error {
	replayed := false
	switch {
	case result.Reservation == nil:
		return refused(admission, result)
	case result.Outcome == earmark.OutcomeApplied:
	case result.Outcome == earmark.OutcomeSame:
		if err := replayable(result.Reservation); err != nil {
			return err
		}
		replayed = keyed // without a key it was another attempt of this call
	default:
		return refused(admission, result)
	}
	return s.answerMade(c, result.Reservation, replayed)
}

// answerMade answers with the reservation that a call made. replayed says that an earlier
// call with the same key made it.
func (s *server) answerMade(c *gin.Context, reservation *earmark.Reservation, replayed bool) error {
	c.Header("Location", "/v1/reservations/"+reservation.ID)
	if replayed {
		c.Header(idempotencyHitHeader, "true")
	}
	shown := s.show(reservation)
	shown.Replayed = replayed
	return answer(c, http.StatusCreated, shown)
}

// replayable returns nil if the reservation of a repeated key still holds its amounts, and
// otherwise the error to answer.
func replayable(reservation *earmark.Reservation) error {
	switch reservation.State {
	case earmark.StateHeld:
		return nil
	case earmark.StateExpired, earmark.StateReview:
		return conflictError(earmark.CodeReservationExpired, reservation,
			"the reservation of this key has expired; use a new key for a new request")
	case earmark.StateCommitted, earmark.StateReleased:
	}
	return conflictError(earmark.CodeAlreadySettled, reservation,
		"the reservation of this key is %s; use a new key for a new request", reservation.State)
}

// refused turns the outcome of an admission that reserved nothing into an error.
func refused(admission earmark.Admission, result earmark.Result) error {
	switch result.Outcome {
	case earmark.OutcomeDenied:
		return denied(result.Decision)
	case earmark.OutcomeReleased:
		if result.Reservation != nil {
			return replayable(result.Reservation)
		}
		err := earmark.Errorf(earmark.CodeAlreadySettled, "the reservation was released before it was made")
		err.ReservationID = admission.ID
		return err
	case earmark.OutcomeTooLate, earmark.OutcomeUnknown: // the deadline has passed or the row is lost: no decision
		err := earmark.Errorf(earmark.CodeAdmissionUnknown, "there was no decision in time; the same key is safe to retry")
		err.ReservationID = admission.ID
		return err
	default:
		return notBudgeted(result, admission.Request)
	}
}

// notBudgeted turns the outcomes that a reservation, a decision and a usage have in common
// into errors that name the field.
func notBudgeted(result earmark.Result, request earmark.ReservationRequest) error {
	switch result.Outcome {
	case earmark.OutcomeNoBudget:
		err := earmark.Errorf(earmark.CodeNoBudget, "%q meets no budget; create one on it or on a scope above it", result.Subject)
		if request.RequireBudget {
			err.Message = fmt.Sprintf("%q has no budget of its own, which \"require_budget\" asks for; create one on it", result.Subject)
		}
		err.Field = "scopes"
		return err
	case earmark.OutcomeUnitNotBudgeted:
		err := earmark.Errorf(earmark.CodeUnitNotBudgeted, "no budget on %q or above it counts %q; create one, leave the unit out", result.Scope, result.Subject)
		if request.RequireBudget {
			err.Message = fmt.Sprintf("no budget of %q itself counts %q, which \"require_budget\" asks for; create one, leave the unit out", result.Scope, result.Subject)
		}
		if !request.AnyScope() {
			err.Message += `, or send "coverage": "any_scope"`
		}
		err.Field = "amounts." + result.Subject
		return err
	case earmark.OutcomeMismatch:
		err := earmark.Errorf(earmark.CodeIdempotencyMismatch, "was used for another request; use a new key, or send the same body")
		err.Field = idempotencyKeyHeader
		return err
	case earmark.OutcomeOverflow:
		return overflow("amounts", result.Subject)
	case earmark.OutcomeInvalid: // a worker of another release has stricter rules
		return earmark.Invalidf("", "%s", result.Subject)
	default:
		return unexpected(result)
	}
}

func denied(decision *earmark.Decision) error {
	if decision == nil {
		decision = &earmark.Decision{}
	}
	err := earmark.Errorf(earmark.CodeBudgetExceeded, "%s", denialMessage(decision))
	err.Violations = decision.Violations
	err.Retryable = decision.Retryable
	err.RetryAt = decision.RetryAt
	return err
}

func denialMessage(decision *earmark.Decision) string {
	if len(decision.Violations) == 0 {
		return "the request does not fit into a budget"
	}
	first := decision.Violations[0]
	words := earmark.Amounts{first.Unit: first.Requested}.String() + " do not fit into the budget on " + first.Scope +
		": " + availableWords(first)
	switch at := decision.RetryAt; {
	case at == nil:
		return words
	case decision.HoldsAlone():
		return words + "; it would fit without the open holds; try again when some have settled, or at " + at.UTC().Format(time.RFC3339)
	default:
		return words + "; try again at " + at.UTC().Format(time.RFC3339)
	}
}

// availableWords describes what a budget has left; if it is overdrawn, 0 and by how much it
// is over.
func availableWords(v earmark.Violation) string {
	if v.Available < 0 {
		return "0 of " + earmark.FormatAmount(v.Limit) + " are available, it is " + earmark.FormatAmount(-v.Available) + " over its limit"
	}
	return earmark.FormatAmount(v.Available) + " of " + earmark.FormatAmount(v.Limit) + " are available"
}

func (s *server) getReservation(c *gin.Context) error {
	id, err := reservationID(c)
	if err != nil {
		return err
	}
	reservation, err := inQueue(c.Request.Context(), s.queues.reads, callerOf(c).turn(), func() (*earmark.Reservation, error) {
		return s.ledger.Reservation(c.Request.Context(), callerOf(c).tenant, id)
	})
	switch {
	case err != nil:
		return err
	case reservation == nil, !callerOf(c).coversAll(reservation.Scopes):
		return noReservationWithID(id)
	}
	return answer(c, http.StatusOK, s.show(reservation))
}

func (s *server) listReservations(c *gin.Context) error {
	filter, err := reservationFilter(c)
	if err != nil {
		return err
	}
	if filter.Stuck {
		if err := callerOf(c).needs(earmark.RoleOperate); err != nil {
			return err
		}
		return s.listStuck(c, filter)
	}
	page, err := inQueue(c.Request.Context(), s.queues.lists, callerOf(c).turn(), func() (earmark.Page[earmark.Reservation], error) {
		return s.ledger.Reservations(c.Request.Context(), callerOf(c).tenant, filter)
	})
	if err != nil {
		return err
	}
	shown := earmark.Page[earmark.Reservation]{Data: []earmark.Reservation{}, NextCursor: page.NextCursor}
	for _, reservation := range page.Data {
		shown.Data = append(shown.Data, s.show(&reservation))
	}
	return answer(c, http.StatusOK, shown)
}

func reservationFilter(c *gin.Context) (filter earmark.ReservationFilter, err error) {
	q, err := readQuery(c, "state", "scope", "overdue", "orphan", "stuck", "stuck_reason", "cursor", "limit")
	if err != nil {
		return filter, err
	}
	states := []earmark.State{
		earmark.StateHeld, earmark.StateCommitted, earmark.StateReleased, earmark.StateExpired, earmark.StateReview,
	}
	if q.values.Has("state") {
		filter.State = earmark.State(q.values.Get("state"))
		if !slices.Contains(states, filter.State) {
			return filter, earmark.Invalidf("state", "%q is not allowed; use one of held, committed, released, expired, review", earmark.Clip(string(filter.State)))
		}
	}
	if filter.Scope, err = q.scope("scope"); err != nil {
		return filter, err
	}
	if filter.Overdue, err = q.flag("overdue"); err != nil {
		return filter, err
	}
	if filter.Orphan, err = q.flag("orphan"); err != nil {
		return filter, err
	}
	if filter.Stuck, filter.StuckReason, err = stuckQuery(q); err != nil {
		return filter, err
	}
	filter.Within = callerOf(c).within()
	filter.Cursor, filter.Limit, err = q.page()
	return filter, err
}

// stuckQuery reads stuck, and stuck_reason, which requires it.
func stuckQuery(q query) (stuck bool, reason earmark.StuckReason, err error) {
	if stuck, err = q.flag("stuck"); err != nil {
		return false, "", err
	}
	if q.values.Has("stuck_reason") {
		reason = earmark.StuckReason(q.values.Get("stuck_reason"))
		if !slices.Contains(earmark.StuckReasons, reason) {
			return false, "", earmark.Invalidf("stuck_reason", "%q is not allowed; use one of %s", earmark.Clip(string(reason)), stuckReasonList())
		}
		if !stuck {
			return false, "", earmark.Invalidf("stuck_reason", "needs stuck=true beside it")
		}
	}
	for _, name := range []string{"state", "overdue", "orphan"} {
		if stuck && q.values.Has(name) {
			return false, "", earmark.Invalidf(name, "cannot be combined with stuck; use stuck_reason")
		}
	}
	return stuck, reason, nil
}

func stuckReasonList() string {
	var words []string
	for _, reason := range earmark.StuckReasons {
		words = append(words, string(reason))
	}
	return strings.Join(words, ", ")
}

// reservationRequest reads the body of a reservation or a decision.
func reservationRequest(c *gin.Context) (earmark.ReservationRequest, error) {
	// The defaults are set first, so that an explicit 0 or "" differs from a missing field.
	request := earmark.ReservationRequest{}.WithDefaults()
	if err := decodeBody(c, &request); err != nil {
		return request, err
	}
	if err := cmp.Or(request.Validate(), earmark.ValidateOwnMetadata(request.Metadata)); err != nil {
		return request, err
	}
	return request.WithDefaults(), callerOf(c).needsScopes("scopes", request.Scopes...)
}

// reservationID reads the id in the path. An id of another form is not found.
func reservationID(c *gin.Context) (string, error) {
	id := c.Param("id")
	if !earmark.IsReservationID(id) {
		return "", noReservationWithID(id)
	}
	return id, noQuery(c)
}

func noReservationWithID(id string) error {
	return earmark.Errorf(earmark.CodeNotFound, "there is no reservation with the id %q", earmark.Clip(id))
}
