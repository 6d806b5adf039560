package migrating

import (
	"context"

	"github.com/earmark-dev/earmark"
	"github.com/earmark-dev/earmark/client"
)

// ChatAfter is where the migration ends.
func (b *Backend) ChatAfter(ctx context.Context, customer, requestID, prompt string) (string, error) {
	request := earmark.ReservationRequest{
		Scopes:     []string{customer},
		Amounts:    earmark.Amounts{"tokens": worstCaseTokens}, // nobody else gets these
		TTLSeconds: 120,                                        // Do extends it while the model works
		OnExpiry:   earmark.OnExpiryCommit,                     // the provider bills a lost call, so charge it
	}
	var reply string
	_, err := b.Earmark.Do(ctx, requestID, request, func(ctx context.Context, _ *earmark.Reservation) (earmark.Amounts, error) {
		answer, usedTokens, err := b.Model(ctx, prompt)
		if err != nil {
			return nil, err // the model may have run, so Do does not release
		}
		reply = answer
		used := earmark.Amounts{"tokens": usedTokens}
		// Keep the old counter going until there is no way back.
		return used, b.recordUsage(context.WithoutCancel(ctx), customer, requestID, usedTokens, true)
	})
	if client.IsDenied(err) {
		return "", ErrOverLimit
	}
	return reply, err
}
