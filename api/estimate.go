package api

import (
	"context"
	"errors"
	"strings"
	"time"

	"github.com/gin-gonic/gin"

	"github.com/earmark-dev/earmark"
	"github.com/earmark-dev/earmark/internal/amounts"
	"github.com/earmark-dev/earmark/internal/prices"
)

// PriceBook finds the prices of a tenant. The error is CodeUnavailable.
type PriceBook interface {
	// Current returns the prices at the newest version.
	Current(ctx context.Context, tenant string) (*prices.Prices, error)
	// Version returns the prices at a version.
	Version(ctx context.Context, tenant string, version int64) (*prices.Prices, error)
	// Versions returns all versions, the first one first.
	Versions(ctx context.Context) ([]prices.Version, error)
	// Add adds a version that draft makes, with add.
	Add(ctx context.Context, tenant string, draft func(prices.State) (prices.Changes, error),
		add func(ctx context.Context, after int64, changes prices.Changes) (*prices.Version, error)) (*prices.Version, error)
}

// estimated replaces the estimate of an admission by its amounts, and notes in the metadata
// which prices apply. It reads which units the budgets count, which is one round trip that a
// request with amounts does not make. The result has an outcome if that read decides: the
// reservation exists, or a scope has no budget.
func (s *server) estimated(c *gin.Context, admission *earmark.Admission) (earmark.Result, error) {
	estimate, request := admission.Request.Estimate, &admission.Request
	counted, err := s.countedUnits(c, admission.ID, admission.RequestHash, request.Scopes)
	if err != nil || counted.Outcome != earmark.OutcomeApplied {
		return counted.Result, err
	}
	units, err := countable(counted.Units, "estimate")
	if err != nil {
		return earmark.Result{}, err
	}
	priced := earmark.Priced{Model: estimate.Model, Provider: estimate.Provider}
	book, err := s.currentPrices(c.Request.Context(), admission.Tenant, units, &priced)
	if err != nil {
		return earmark.Result{}, err
	}
	request.Amounts, err = amounts.Worst(*estimate, units, request.Scopes, book, priced.At)
	request.Estimate, request.Metadata = nil, request.Metadata.With(priced)
	return earmark.Result{}, err
}

func (s *server) countedUnits(c *gin.Context, id, hash string, scopes []string) (earmark.Counted, error) {
	ctx, cancel := context.WithTimeout(c.Request.Context(), s.preflightTimeout)
	defer cancel()
	return inQueue(ctx, s.queues.preflights, callerOf(c).turn(scopes...), func() (earmark.Counted, error) {
		return s.ledger.CountedUnits(ctx, callerOf(c).tenant, id, hash, scopes)
	})
}

// countable returns those of units that Earmark counts by itself; field names the input in
// the error.
func countable(units []string, field string) ([]string, error) {
	counted := amounts.Countable(units)
	if len(counted) == 0 {
		err := earmark.Errorf(earmark.CodeUnitNotBudgeted, "the budgets on these scopes count %s; Earmark itself counts %s; send amounts",
			strings.Join(units, ", "), strings.Join(earmark.CountedUnits, ", "))
		err.Field = field
		return nil, err
	}
	return counted, nil
}

// currentPrices returns the prices of now, and notes them in priced; nil if units need
// none.
func (s *server) currentPrices(ctx context.Context, tenant string, units []string, priced *earmark.Priced) (amounts.Prices, error) {
	if !amounts.NeedPrices(units) {
		return nil, nil //nolint:nilnil // documented: no prices are needed
	}
	current, err := s.prices.Current(ctx, tenant)
	if err != nil {
		return nil, err
	}
	priced.Version, priced.At = current.Version, time.Now()
	return current, nil
}

// pricesOf returns the prices of a reservation's admission, and notes them in priced; nil if
// its units need none. A reservation that was made with amounts has no note of them: those
// are the prices of the version that was the newest at its creation.
func (s *server) pricesOf(ctx context.Context, tenant string, r *earmark.Reservation, priced *earmark.Priced) (amounts.Prices, error) {
	if !amounts.NeedPrices(r.Amounts.Units()) {
		return nil, nil //nolint:nilnil // documented: no prices are needed
	}
	if priced.Version == 0 {
		versions, err := s.prices.Versions(ctx)
		if err != nil {
			return nil, err
		}
		for _, v := range versions {
			if priced.Version == 0 || !v.CreatedAt.After(r.CreatedAt) { // before the first version, that one
				priced.Version = v.ID
			}
		}
		priced.At = r.CreatedAt
	}
	return s.prices.Version(ctx, tenant, priced.Version)
}

// usageOf returns what the response of a reservation cost in each of the reserved units, at
// the prices of its admission, and keeps the response in the settlement. It needs the
// reservation, which a commit of amounts does not read; r is nil unless it is read already.
func (s *server) usageOf(ctx context.Context, settlement *earmark.Transition, r *earmark.Reservation, response earmark.Response) (usage earmark.Amounts, err error) {
	if r == nil {
		if r, err = s.existingReservation(ctx, settlement); err != nil {
			return nil, err
		}
	}
	priced := r.Metadata.Priced()
	book, err := s.pricesOf(ctx, settlement.Tenant, r, &priced)
	if err != nil {
		return nil, withReservationID(err, settlement.ID)
	}
	usage, settlement.Response, err = amounts.Used(response, r.Amounts.Units(), r.Scopes, book, priced, response.At(respondedAt(r, settlement.Estimated)))
	if err != nil {
		return nil, withReservationID(err, settlement.ID)
	}
	return usage, nil
}

// respondedAt returns when a response came whose commit does not say it: now, but of a
// commit that is repeated, the moment of the first one, so that it is the same usage.
func respondedAt(r *earmark.Reservation, estimated bool) time.Time {
	switch {
	case r.SettledAt == nil, r.Estimated && !estimated: // the first one, or the real usage after an estimate
		return time.Now()
	case r.Response != nil:
		return r.Response.RespondedAt
	}
	return *r.SettledAt
}

// spent replaces the response of a charge by its amounts, at the prices of now; as estimated
// does, it reads which units the budgets count.
func (s *server) spent(c *gin.Context, charge *earmark.Charge) (earmark.Result, error) {
	request := &charge.Request
	response := request.Response
	counted, err := s.countedUnits(c, charge.ID, charge.RequestHash, request.Scopes)
	if err != nil || counted.Outcome != earmark.OutcomeApplied {
		return counted.Result, err
	}
	units, err := countable(counted.Units, "provider_usage")
	if err != nil {
		return earmark.Result{}, err
	}
	priced := earmark.Priced{Model: response.Model, Provider: response.Provider}
	book, err := s.currentPrices(c.Request.Context(), charge.Tenant, units, &priced)
	if err != nil {
		return earmark.Result{}, err
	}
	request.Amounts, charge.Response, err = amounts.Used(response, units, request.Scopes, book, priced, response.At(time.Now()))
	if err != nil {
		return earmark.Result{}, err
	}
	priced.Model = charge.Response.Model
	request.Response, request.Metadata = earmark.Response{}, request.Metadata.With(priced)
	return earmark.Result{}, nil
}

// asEstimates names the estimate in an error of a request that has no amounts.
func asEstimates(err error, request earmark.ReservationRequest) error {
	var e *earmark.Error
	if request.Estimate == nil || !errors.As(err, &e) || e.Field != "amounts" && !strings.HasPrefix(e.Field, "amounts.") {
		return err
	}
	named := *e
	named.Field = "estimate"
	return &named
}

// noPrices is a source without versions.
type noPrices struct{}

func (noPrices) PriceVersions(context.Context, int64) ([]prices.Version, error) { return nil, nil }
