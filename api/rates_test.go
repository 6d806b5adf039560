package api

import (
	"fmt"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/earmark-dev/earmark"
)

// counter returns the value of a counter with one label.
func (b *env) counter(name, label string) float64 {
	b.t.Helper()
	families, err := b.registry.Gather()
	require.NoError(b.t, err)
	for _, family := range families {
		for _, metric := range family.GetMetric() {
			if family.GetName() == name && len(metric.GetLabel()) == 1 && metric.GetLabel()[0].GetValue() == label {
				return metric.GetCounter().GetValue()
			}
		}
	}
	require.Failf(b.t, "there is no such counter", "%s %s", name, label)
	return 0
}

func limitedTo(t *testing.T, text string) func(*earmark.Credential) {
	t.Helper()
	rate, err := earmark.ParseRate(text)
	require.NoError(t, err)
	return func(c *earmark.Credential) { c.Key.Rate = rate }
}

// left checks what an answer says of the key's rate.
func (x exchange) left(policy, left string) {
	x.t.Helper()
	require.Equal(x.t, []string{policy}, x.resp.Header.Values("RateLimit-Policy"))
	require.Equal(x.t, []string{left}, x.resp.Header.Values("RateLimit"))
}

// A key makes as many calls as its rate allows. More are refused before they reach the ledger, and hold up no other key.
func TestKeysOwnRate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := playingAlong()
		b := setup(t, f, withKeys)
		limited, free := f.addKey(otherTenant, earmark.RoleRead, limitedTo(t, "3/s")), f.addKey(otherTenant, earmark.RoleRead)
		const policy = `"key";q=3;w=1`
		list := func() exchange { return b.do("GET", "/v1/budgets", "", with(limited)...) }
		for _, left := range []string{`"key";r=2;t=1`, `"key";r=1;t=1`, `"key";r=0;t=1`} {
			list().status(http.StatusOK).left(policy, left)
		}
		reached := f.count("Budgets")
		refused := list()
		p := refused.problem(http.StatusTooManyRequests, earmark.CodeRateLimited)
		require.Contains(t, p.Detail, "3 calls a second")
		refused.left(policy, `"key";r=0;t=1`)
		require.Equal(t, "1", refused.resp.Header.Get("Retry-After"))
		require.Equal(t, reached, f.count("Budgets"))
		require.InDelta(t, 1, b.counter("earmark_refused_calls_total", "key_rate"), 0)

		other := b.do("GET", "/v1/budgets", "", with(free)...).status(http.StatusOK)
		require.Empty(t, other.resp.Header.Get("RateLimit"), "a key without a rate")

		time.Sleep(time.Second / 3) //nolint:forbidigo // fake time
		list().status(http.StatusOK).left(policy, `"key";r=0;t=1`)
		list().status(http.StatusTooManyRequests)
		time.Sleep(time.Minute) //nolint:forbidigo // fake time
		b.do("POST", "/v1/budgets", `{"scope":"acme","unit":"tokens","limit":1}`, with(limited)...).status(http.StatusForbidden).left(policy, `"key";r=2;t=1`)
	})
}

func TestRetryAfterTheKeysRate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := playingAlong()
		b := setup(t, f, withKeys)
		token := f.addKey(otherTenant, earmark.RoleRead, limitedTo(t, "3/m"))
		whoami := func() exchange { return b.do("GET", "/v1/whoami", "", with(token)...) }
		whoami().left(`"key";q=3;w=60`, `"key";r=2;t=20`)
		whoami()
		whoami()
		require.Equal(t, "20", whoami().status(http.StatusTooManyRequests).resp.Header.Get("Retry-After"))
		time.Sleep(20 * time.Second) //nolint:forbidigo // fake time
		whoami().status(http.StatusOK)
		require.Equal(t, "20", whoami().status(http.StatusTooManyRequests).resp.Header.Get("Retry-After"))
	})
}

// A refused commit is a charge that may be lost.
func TestKeysRateRefusesNoSettlement(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := playingAlong()
		b := setup(t, f, withKeys)
		token := f.addKey(otherTenant, earmark.RoleReserve, limitedTo(t, "1/m"))
		b.do("GET", "/v1/whoami", "", with(token)...).status(http.StatusOK)
		b.do("POST", "/v1/reservations", reserveBody, with(token)...).status(http.StatusTooManyRequests)
		for _, name := range []string{"commit", "release", "extend"} {
			o := operations["POST /v1/reservations/:id/"+name]
			b.do(o.method, o.path, o.body, with(token)...).status(http.StatusOK).left(`"key";q=1;w=60`, `"key";r=0;t=60`)
		}
	})
}

// Of calls at once as many pass as the rate allows, whatever their number.
func TestKeysRateUnderAFlood(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := playingAlong()
		b := setup(t, f, withKeys)
		token := f.addKey(otherTenant, earmark.RoleRead, limitedTo(t, "7/s"))
		flood := b.flood(100, "GET", "/v1/whoami", "", with(token)...)
		flood.done.Wait()
		require.Equal(t, map[int]int{http.StatusOK: 7, http.StatusTooManyRequests: 93}, flood.answers)
	})
}

func TestRatesChangeAndAreForgotten(t *testing.T) {
	t.Parallel()
	now := testTime
	r := newRates()
	r.now = func() time.Time { return now }
	slow, fast := earmark.Rate{Calls: 1, Window: time.Minute}, earmark.Rate{Calls: 2, Window: time.Second}
	_, allowed := r.take(testKeyID, slow)
	require.True(t, allowed)
	now = now.Add(time.Second)
	_, allowed = r.take(testKeyID, fast)
	require.False(t, allowed)
	now = now.Add(30 * time.Second)
	_, allowed = r.take(testKeyID, fast)
	require.False(t, allowed, "for no longer than the window of the old rate")
	now = now.Add(time.Minute)
	for i := range maxRateKeys {
		r.take(fmt.Sprint(i), fast)
	}
	now = now.Add(time.Minute)
	r.take(testKeyID, fast)
	require.Len(t, r.full, 1)
}

func TestRateOfANewKey(t *testing.T) {
	t.Parallel()
	f := playingAlong()
	b := setup(t, f, withKeys)
	admin := f.addKey(otherTenant, earmark.RoleAdmin)
	b.do("POST", "/v1/keys", `{"role":"read","rate":"50/s"}`, with(admin)...).status(http.StatusCreated)
	require.Equal(t, earmark.Rate{Calls: 50, Window: time.Second}, f.last().(earmark.KeyRequest).Rate)
	for _, rate := range []string{"50", "0/s", "50/h", "1000001/s", "-1/m"} {
		p := b.do("POST", "/v1/keys", `{"role":"read","rate":"`+rate+`"}`, with(admin)...).problem(http.StatusBadRequest, earmark.CodeInvalidRequest)
		require.Equal(t, "rate", p.Field)
		require.Contains(t, p.Detail, "50/s or 3000/m")
	}
	require.Equal(t, 1, f.count("CreateKey"))
}
