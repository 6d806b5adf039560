package migrating

import (
	"context"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/earmark-dev/earmark"
)

// ChatShadow obeys the counter, compares Earmark's decision, and records the usage for it.
func (b *Backend) ChatShadow(ctx context.Context, customer, requestID, prompt string) (string, error) {
	allowed, err := b.checkUsageAllowed(ctx, customer, worstCaseTokens)
	if err != nil {
		return "", err
	}
	b.compare(ctx, customer, allowed)
	if !allowed {
		return "", ErrOverLimit
	}
	reply, usedTokens, err := b.Model(ctx, prompt)
	if err != nil {
		return "", err
	}
	return reply, b.recordUsage(ctx, customer, requestID, usedTokens, false)
}

// compare logs a decision that differs. It reserves nothing, and if it fails, the
// request goes on.
func (b *Backend) compare(ctx context.Context, customer string, allowed bool) {
	ctx, cancel := context.WithTimeout(ctx, 250*time.Millisecond)
	defer cancel()
	decision, err := b.Earmark.Decide(ctx, earmark.ReservationRequest{
		Scopes: []string{customer}, Amounts: earmark.Amounts{"tokens": worstCaseTokens},
	})
	switch {
	case err != nil:
		b.Log.WarnContext(ctx, "Earmark has no answer.", "customer", customer, "error", err)
	case decision.Admitted != allowed:
		b.Log.WarnContext(ctx, "Earmark disagrees.", "customer", customer, "allowed", allowed, "violations", decision.Violations)
	}
}

// recordUsage adds to the counter and leaves a row, both or neither, once a request.
func (b *Backend) recordUsage(ctx context.Context, customer, requestID string, tokens int64, charged bool) error {
	if tokens == 0 {
		return nil
	}
	return pgx.BeginFunc(ctx, b.DB, func(tx pgx.Tx) error {
		row, err := tx.Exec(ctx, `INSERT INTO usage_charges (request_id, customer, period, tokens, charged)
			VALUES ($1, $2, date_trunc('month', now() AT TIME ZONE 'UTC')::date, $3, $4) ON CONFLICT DO NOTHING`,
			requestID, customer, tokens, charged)
		if err != nil || row.RowsAffected() == 0 {
			return err
		}
		_, err = tx.Exec(ctx, `UPDATE usage SET used = used + $2
			WHERE customer = $1 AND period = date_trunc('month', now() AT TIME ZONE 'UTC')::date`, customer, tokens)
		return err
	})
}

// SendCharges sends the rows that Earmark does not have yet. Run it every second, in
// as many processes as you like: a key counts once.
func (b *Backend) SendCharges(ctx context.Context) error {
	rows, err := b.DB.Query(ctx, `SELECT request_id, customer, tokens FROM usage_charges WHERE NOT charged LIMIT 1000`)
	if err != nil {
		return err
	}
	charges, err := pgx.CollectRows(rows, pgx.RowToStructByPos[charge])
	if err != nil {
		return err
	}
	for _, c := range charges {
		if err := b.charge(ctx, "usage-"+c.Key, c.Customer, c.Tokens); err != nil {
			return err
		}
		if _, err := b.DB.Exec(ctx, `UPDATE usage_charges SET charged = true WHERE request_id = $1`, c.Key); err != nil {
			return err
		}
	}
	return nil
}

type charge struct {
	Key      string
	Customer string
	Tokens   int64
}

func (b *Backend) charge(ctx context.Context, key, customer string, tokens int64) error {
	_, err := b.Earmark.ChargeUsage(ctx, key, earmark.UsageRequest{
		Scopes: []string{customer}, Amounts: earmark.Amounts{"tokens": tokens},
	})
	return err
}
