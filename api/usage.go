package api

import (
	"cmp"
	"net/http"
	"time"

	"github.com/gin-gonic/gin"

	"github.com/earmark-dev/earmark"
)

const (
	idempotencyKeyHeader = "Idempotency-Key"
	idempotencyHitHeader = "Idempotency-Hit"
)

// chargeUsage charges usage without a reservation. It requires a key, because a repeated
// charge would be charged twice.
func (s *server) chargeUsage(c *gin.Context) error {
	if err := noQuery(c); err != nil {
		return err
	}
	subject := subjectOf(c)
	if subject.keyErr != nil {
		return subject.keyErr
	}
	if subject.key == "" {
		return earmark.Invalidf(idempotencyKeyHeader, "is missing; give a key of 1 to %d printable ASCII characters that names this usage", earmark.MaxIdempotencyKey)
	}
	var request earmark.UsageRequest
	if err := decodeBody(c, &request); err != nil {
		return err
	}
	if err := cmp.Or(request.Validate(), earmark.ValidateOwnMetadata(request.Metadata), callerOf(c).needsScopes("scopes", request.Scopes...)); err != nil {
		return err
	}
	request = request.WithDefaults()
	charge := earmark.Charge{
		ID:          subject.reservationID,
		Tenant:      callerOf(c).tenant,
		Request:     request,
		RequestHash: request.Hash(),
		Actor:       callerOf(c).actor(),
		Reason:      "usage without a reservation",
	}
	started := time.Now()
	result, err := s.charge(c, charge)
	s.metrics.settlement("charge", result.Outcome, false, err, time.Since(started))
	if err != nil {
		return withReservationID(err, charge.ID)
	}
	return s.answerCharge(c, request, result)
}

// charge charges amounts, or what a response cost.
func (s *server) charge(c *gin.Context, charge earmark.Charge) (earmark.Result, error) {
	if charge.Request.Given() {
		if decided, err := s.spent(c, &charge); err != nil || decided.Outcome != "" {
			return decided, err
		}
	}
	return inQueue(c.Request.Context(), s.queues.charges, callerOf(c).turn(charge.Request.Scopes...), func() (earmark.Result, error) {
		return s.ledger.Charge(c.Request.Context(), charge)
	})
}

func (s *server) answerCharge(c *gin.Context, request earmark.UsageRequest, result earmark.Result) error {
	asked := earmark.ReservationRequest{RequireBudget: request.RequireBudget, Coverage: earmark.CoverageAnyScope}
	switch {
	case result.Reservation == nil:
		return notBudgeted(result, asked)
	case result.Outcome == earmark.OutcomeApplied:
	case result.Outcome == earmark.OutcomeSame && result.Reservation.ExpiresAt == nil:
	case result.Outcome == earmark.OutcomeSame: // the key belongs to a reservation with a lease
		return notBudgeted(earmark.Result{Outcome: earmark.OutcomeMismatch}, asked)
	default:
		return notBudgeted(result, asked)
	}
	return s.answerMade(c, result.Reservation, result.Outcome == earmark.OutcomeSame)
}

// decide reports whether a reservation would be admitted now. It reserves nothing, so the
// answer may change a moment later.
func (s *server) decide(c *gin.Context) error {
	if err := noQuery(c); err != nil {
		return err
	}
	request, err := reservationRequest(c)
	if err != nil {
		return err
	}
	result, decided, err := s.decideOn(c, request)
	if err != nil {
		return asEstimates(err, request)
	}
	decision := earmark.Decision{Admitted: true}
	switch result.Outcome {
	case earmark.OutcomeApplied:
	case earmark.OutcomeDenied:
		decision = earmark.Decision{}
		if result.Decision != nil {
			decision = *result.Decision
		}
	default:
		return asEstimates(notBudgeted(result, request), request)
	}
	decision.Violations = orEmpty(decision.Violations)
	if request.Estimate != nil {
		decision.Amounts, decision.PriceVersion = decided.Amounts, decided.Metadata.Priced().Version
	}
	return answer(c, http.StatusOK, decision)
}

// decideOn returns the decision, and the request with amounts in the place of an estimate.
func (s *server) decideOn(c *gin.Context, request earmark.ReservationRequest) (earmark.Result, earmark.ReservationRequest, error) {
	if request.Estimate != nil {
		admission := earmark.Admission{Tenant: callerOf(c).tenant, Request: request}
		if decided, err := s.estimated(c, &admission); err != nil || decided.Outcome != "" {
			return decided, request, err
		}
		request = admission.Request
	}
	result, err := inQueue(c.Request.Context(), s.queues.reads, callerOf(c).turn(request.Scopes...), func() (earmark.Result, error) {
		return s.ledger.Decide(c.Request.Context(), callerOf(c).tenant, request)
	})
	return result, request, err
}

func (s *server) listEntries(c *gin.Context) error {
	filter, err := entryFilter(c)
	if err != nil {
		return err
	}
	page, err := inQueue(c.Request.Context(), s.queues.lists, callerOf(c).turn(), func() (earmark.Page[earmark.Entry], error) {
		return s.ledger.Entries(c.Request.Context(), callerOf(c).tenant, filter)
	})
	if err != nil {
		return err
	}
	page.Data = orEmpty(page.Data)
	return answer(c, http.StatusOK, page)
}

func entryFilter(c *gin.Context) (filter earmark.EntryFilter, err error) {
	q, err := readQuery(c, "budget_id", "reservation_id", "cursor", "limit")
	if err != nil {
		return filter, err
	}
	if filter.BudgetID, err = q.id("budget_id", earmark.IsBudgetID, "bud_…"); err != nil {
		return filter, err
	}
	if filter.ReservationID, err = q.id("reservation_id", earmark.IsReservationID, "rsv_…"); err != nil {
		return filter, err
	}
	filter.Within = callerOf(c).within()
	filter.Cursor, filter.Limit, err = q.page()
	return filter, err
}

// idempotencyKey reads the header; "" if it is missing.
func idempotencyKey(c *gin.Context) (string, error) {
	keys := c.Request.Header.Values(idempotencyKeyHeader)
	switch len(keys) {
	case 0:
		return "", nil
	case 1:
		return keys[0], earmark.ValidateIdempotencyKey(keys[0])
	}
	return "", earmark.Invalidf(idempotencyKeyHeader, "is given %d times; once is allowed", len(keys))
}
