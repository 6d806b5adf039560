// Package migrating holds the code of docs/migrating.md: the way from a counter
// that is read, acted on and written, to Earmark. Its test runs all of it, and
// checks that the document shows this code and no other.
package migrating

import (
	"context"
	"errors"
	"log/slog"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/earmark-dev/earmark/client"
)

// worstCaseTokens is what one answer may use at most: the prompt and max_tokens.
const worstCaseTokens = 100

// ErrOverLimit means that the customer has no room for the request.
var ErrOverLimit = errors.New("the customer's limit is reached")

// Backend answers the customers' requests.
type Backend struct {
	DB      *pgxpool.Pool
	Earmark *client.Client
	Log     *slog.Logger
	Model   func(ctx context.Context, prompt string) (reply string, usedTokens int64, err error)
}

// ChatBefore is where the migration starts.
func (b *Backend) ChatBefore(ctx context.Context, customer, prompt string) (string, error) {
	allowed, err := b.checkUsageAllowed(ctx, customer, worstCaseTokens) // everybody sees 900 of 1,000
	if err != nil {
		return "", err
	}
	if !allowed {
		return "", ErrOverLimit
	}
	reply, usedTokens, err := b.Model(ctx, prompt) // seconds pass
	if err != nil {
		return "", err
	}
	return reply, b.incrementUsage(ctx, customer, usedTokens) // and everybody adds
}

func (b *Backend) checkUsageAllowed(ctx context.Context, customer string, tokens int64) (allowed bool, err error) {
	err = b.DB.QueryRow(ctx, `SELECT used + $2 <= token_limit FROM usage
		WHERE customer = $1 AND period = date_trunc('month', now() AT TIME ZONE 'UTC')::date`, customer, tokens).Scan(&allowed)
	return allowed, err
}

func (b *Backend) incrementUsage(ctx context.Context, customer string, tokens int64) error {
	_, err := b.DB.Exec(ctx, `UPDATE usage SET used = used + $2
		WHERE customer = $1 AND period = date_trunc('month', now() AT TIME ZONE 'UTC')::date`, customer, tokens)
	return err
}
