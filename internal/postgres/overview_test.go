package postgres_test

import (
	"fmt"
	"math"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/earmark-dev/earmark"
)

// aged moves the making of a reservation into the past.
func (b *env) aged(id string, age time.Duration) {
	b.t.Helper()
	_, err := b.pool.Exec(ctx(), "UPDATE earmark.reservations SET created_at = clock_timestamp() - $2::interval WHERE id = $1", id, age)
	require.NoError(b.t, err)
}

func (b *env) overview(tenant string) earmark.Overview {
	b.t.Helper()
	overview, err := b.Overview(ctx(), tenant, nil)
	require.NoError(b.t, err)
	return overview
}

func TestOverviewCountsWhatIsOpenByAge(t *testing.T) {
	b := setup(t)
	b.budget("acme", "tokens", math.MaxInt64)
	b.budget("acme", "requests", 1000)
	hold := func(name string, age time.Duration, amounts earmark.Amounts) earmark.Transition {
		a := admission(name, amounts, "acme/"+name)
		a.Request.OnExpiry = earmark.OnExpiryReview
		s := b.held(a)
		b.aged(s.ID, age)
		return s
	}
	hold("young", 0, tokens(1))
	hold("young2", 59*time.Second, earmark.Amounts{"tokens": 10, "requests": 2})
	b.due(hold("overdue", time.Minute, tokens(100)).ID)
	orphan := hold("orphan", time.Hour, tokens(1000))
	require.NoError(t, b.MarkChecked(ctx(), orphan.Tenant, orphan.ID, true, false))
	review := hold("review", 8*24*time.Hour, tokens(10_000))
	b.due(review.ID)
	b.expire(review)
	b.commit(hold("committed", 2*time.Minute, tokens(5)), tokens(5))
	b.release(hold("released", 2*time.Minute, tokens(5)))

	o := b.overview(earmark.DefaultTenant)
	require.Equal(t, []int64{4, 1, 1, 1}, []int64{o.Held, o.Review, o.Overdue, o.Orphan})
	require.True(t, o.Complete)
	require.WithinDuration(t, time.Now(), o.At, time.Minute)
	var got []string
	for _, age := range o.Ages {
		to := "…"
		if age.ToSeconds != nil {
			to = (time.Duration(*age.ToSeconds) * time.Second).String()
		}
		got = append(got, fmt.Sprintf("%s to %s: %d, %s", time.Duration(age.FromSeconds)*time.Second, to, age.Reservations, age.Amounts))
	}
	require.Equal(t, []string{
		"0s to 1m0s: 2, 2 requests + 11 tokens", "1m0s to 5m0s: 1, 100 tokens", "5m0s to 15m0s: 0, ", "15m0s to 1h0m0s: 0, ",
		"1h0m0s to 6h0m0s: 1, 1,000 tokens", "6h0m0s to 24h0m0s: 0, ", "24h0m0s to …: 1, 10,000 tokens",
	}, got)
	var oldest []string
	for _, r := range o.Oldest {
		oldest = append(oldest, r.Scopes[0])
	}
	require.Equal(t, []string{"acme/review", "acme/orphan", "acme/overdue", "acme/young2", "acme/young"}, oldest)
	require.Equal(t, earmark.StateReview, o.Oldest[0].State)

	other := b.overview("other")
	require.Zero(t, other.Held+other.Review+other.Overdue+other.Orphan)
	require.Len(t, other.Ages, len(earmark.OverviewAges())+1)
	require.Empty(t, other.Oldest)
}

func TestOverviewShowsTheOldestAlone(t *testing.T) {
	b := setup(t)
	b.budget("acme", "tokens", 1000)
	for i := range earmark.MaxOverviewOldest + 3 {
		b.aged(b.held(admission(fmt.Sprint(i), tokens(1), "acme")).ID, time.Duration(i)*time.Minute)
	}
	o := b.overview(earmark.DefaultTenant)
	require.EqualValues(t, earmark.MaxOverviewOldest+3, o.Held)
	require.Len(t, o.Oldest, earmark.MaxOverviewOldest)
	require.Equal(t, earmark.ReservationID(earmark.DefaultTenant, fmt.Sprint(earmark.MaxOverviewOldest+2)), o.Oldest[0].ID)
}

// Holds on budgets of their own may add up to more than int64 can say.
func TestOverviewOfMoreThanInt64(t *testing.T) {
	b := setup(t)
	for _, scope := range []string{"acme", "other"} {
		b.budget(scope, "tokens", math.MaxInt64)
		b.held(admission(scope, tokens(math.MaxInt64), scope))
	}
	require.Equal(t, tokens(math.MaxInt64), b.overview(earmark.DefaultTenant).Ages[0].Amounts)
}
