package postgres_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sync/errgroup"

	"github.com/earmark-dev/earmark"
	"github.com/earmark-dev/earmark/internal/postgres"
	"github.com/earmark-dev/earmark/internal/prices"
	"github.com/earmark-dev/earmark/pricing"
)

func priced(model, input string) pricing.Entry {
	return pricing.Entry{Provider: "openai", Model: model, From: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC),
		Prices: pricing.Prices{Rates: pricing.Rates{pricing.Input: pricing.PerMillion(input), pricing.Reasoning: pricing.As(pricing.Output), pricing.Output: pricing.USD("0")}}}
}

func TestPriceVersionsAreKeptAsTheyWereAdded(t *testing.T) {
	b := setup(t)
	b.tenant("acme")
	shared := prices.Changes{Entries: []pricing.Entry{priced("gpt", "2.5")}, Multipliers: []prices.Multiplier{{Scope: "x/y", Factor: pricing.MustDecimal("1.2")}, {Model: "gpt"}}}
	first, err := b.owner.AddPrices(ctx(), prices.Installation, 0, shared, "a file", alice, "new prices")
	require.NoError(t, err)
	require.Equal(t, prices.Version{ID: 1, Source: "a file", Actor: alice, Reason: "new prices", CreatedAt: first.CreatedAt, Changes: shared}, *first)
	second, err := b.AddOwnPrices(ctx(), "acme", 1, []pricing.Entry{priced("gpt", "3")}, "", earmark.ActorAPI.WithKey("abcdefghijkl"), "")
	require.NoError(t, err)
	require.Equal(t, int64(2), second.ID)
	require.Equal(t, "acme", second.Tenant)

	late, err := b.owner.AddPrices(ctx(), "acme", 1, prices.Changes{Fallback: &prices.Model{Provider: "openai", Model: "gpt"}}, "", alice, "")
	require.NoError(t, err)
	require.Nil(t, late, "another version came first")
	_, err = b.owner.AddPrices(ctx(), "nobody", 2, shared, "", alice, "")
	requireRefused(t, earmark.CodeNotFound, "", err)
	_, err = b.AddOwnPrices(ctx(), prices.Installation, 2, nil, "", alice, "")
	requireRefused(t, earmark.CodeNotFound, "", err)

	all, err := b.PriceVersions(ctx(), 0)
	require.NoError(t, err)
	require.Equal(t, []prices.Version{*first, *second}, all)
	rest, err := b.PriceVersions(ctx(), 1)
	require.NoError(t, err)
	require.Equal(t, all[1:], rest)
	for _, sql := range []string{"UPDATE earmark.price_versions SET source = source", "DELETE FROM earmark.price_versions", "TRUNCATE earmark.price_versions"} {
		_, err := b.pool.Exec(ctx(), sql)
		require.ErrorContains(t, err, "append-only", sql)
	}
	log, err := b.Audit(ctx(), earmark.DefaultTenant, earmark.AuditFilter{Action: earmark.ActionPriceAdd})
	require.NoError(t, err)
	require.Len(t, log.Data, 1)
	require.Equal(t, "1", log.Data[0].Subject)
	require.Contains(t, string(log.Data[0].After), `"entries": 1`)
	log, err = b.Audit(ctx(), "acme", earmark.AuditFilter{Subject: "2"})
	require.NoError(t, err)
	require.Len(t, log.Data, 1)
}

// The server's account adds entries of a tenant and nothing else about prices.
func TestAppRoleAddsATenantsOwnPricesAlone(t *testing.T) {
	b := setup(t)
	app := postgres.New(asApp(t, b.pool))
	_, err := app.AddOwnPrices(ctx(), earmark.DefaultTenant, 0, []pricing.Entry{priced("gpt", "3")}, "", alice, "")
	require.NoError(t, err)
	for _, tenant := range []string{prices.Installation, earmark.DefaultTenant} {
		_, err = app.AddPrices(ctx(), tenant, 1, prices.Changes{Entries: []pricing.Entry{priced("gpt", "1")}}, "", alice, "")
		require.Error(t, err)
	}
	all, err := app.PriceVersions(ctx(), 0)
	require.NoError(t, err)
	require.Len(t, all, 1)
}

func TestPriceVersionsAddedAtOnceHaveNumbersWithoutGaps(t *testing.T) {
	b := setup(t)
	const callers = 4
	var group errgroup.Group
	for i := range callers {
		group.Go(func() error {
			book := prices.NewBook(b.Ledger)
			_, err := book.Add(ctx(), prices.Installation, func(s prices.State) (prices.Changes, error) {
				require.Len(t, s.Own, int(s.Version))
				return prices.Changes{Entries: []pricing.Entry{priced(fmt.Sprint("gpt-", i), "1")}}, nil
			}, func(ctx context.Context, after int64, c prices.Changes) (*prices.Version, error) {
				return b.owner.AddPrices(ctx, prices.Installation, after, c, "", alice, "")
			})
			return err
		})
	}
	require.NoError(t, group.Wait())
	p, err := prices.NewBook(b.Ledger).Current(ctx(), earmark.DefaultTenant)
	require.NoError(t, err)
	require.Equal(t, int64(callers), p.Version)
	require.Len(t, p.Entries(), callers)
}
