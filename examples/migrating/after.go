package migrating

import (
	"context"
	"errors"

	"github.com/earmark-dev/earmark"
	"github.com/earmark-dev/earmark/client"
)

// ChatAfter is where the migration ends.
func (b *Backend) ChatAfter(ctx context.Context, customer, requestID, prompt string) (string, error) {
	reservation, err := b.Earmark.Reserve(ctx, requestID, earmark.ReservationRequest{
		Scopes:     []string{customer},
		Amounts:    earmark.Amounts{"tokens": worstCaseTokens}, // nobody else gets these
		TTLSeconds: 120,
	})
	if client.IsDenied(err) {
		return "", ErrOverLimit
	}
	if err != nil {
		return "", err // no decision is not a yes
	}
	reply, usedTokens, err := b.Model(ctx, prompt)
	settle := context.WithoutCancel(ctx) // the tokens are spent, whoever has hung up
	if err != nil {
		_, releaseErr := b.Earmark.Release(settle, reservation.ID, "the model failed")
		return "", errors.Join(err, releaseErr)
	}
	_, err = b.Earmark.Commit(settle, reservation.ID, earmark.Amounts{"tokens": usedTokens})
	if err != nil {
		return "", err
	}
	return reply, b.recordUsage(settle, customer, requestID, usedTokens, true) // until there is no way back
}
