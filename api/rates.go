package api

import (
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/gin-gonic/gin"

	"github.com/earmark-dev/earmark"
)

const (
	// maxRateKeys is how many keys rates remembers before it looks for those that it can forget.
	maxRateKeys = 10_000
	forgetPause = time.Second // between two such looks, each at all keys
)

// rates counts the calls of the keys that have a rate of their own, in this process. A key may save up the
// calls of one window, and gets them back evenly.
type rates struct {
	now func() time.Time

	mu   sync.Mutex
	full map[string]time.Time // when the key may make all calls of its window again, by key id; past or absent: now
	last time.Time            // when it looked for keys that it can forget
}

func newRates() *rates { return &rates{now: time.Now, full: map[string]time.Time{}} }

// quota is what is left of a key's rate.
type quota struct {
	rate earmark.Rate
	left int           // calls that may be made now
	full time.Duration // until all calls of the window may be made
	wait time.Duration // until the next call may be made; 0: now
}

// take counts a call and returns what is left. If the key has no call left, it counts nothing and returns false.
func (r *rates) take(keyID string, rate earmark.Rate) (q quota, allowed bool) {
	return r.count(keyID, rate, rate.Window/time.Duration(rate.Calls))
}

// look returns what is left.
func (r *rates) look(keyID string, rate earmark.Rate) quota {
	q, _ := r.count(keyID, rate, 0)
	return q
}

// count takes a share of the window, unless the key has less.
func (r *rates) count(keyID string, rate earmark.Rate, share time.Duration) (q quota, allowed bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := r.now()
	q = quota{rate: rate, full: min(r.full[keyID].Sub(now), rate.Window)} // the rate may have changed
	q.full = max(q.full, 0)
	each := rate.Window / time.Duration(rate.Calls)
	if allowed = q.full+share <= rate.Window; allowed && share > 0 { // mutation: key-rate
		q.full += share
		r.forget(now)
		r.full[keyID] = now.Add(q.full)
	}
	q.left = int((rate.Window - q.full) / each)
	if q.left == 0 {
		q.wait = q.full + each - rate.Window
	}
	return q, allowed
}

// forget removes the keys that may make all calls again, once there are many.
func (r *rates) forget(now time.Time) {
	if len(r.full) < maxRateKeys || now.Sub(r.last) < forgetPause {
		return
	}
	r.last = now
	for id, at := range r.full {
		if !at.After(now) {
			delete(r.full, id)
		}
	}
}

// unrefusable are the calls that a key's rate does not count: a commit that is refused is a charge that may be lost, and an
// extension that is refused ends a lease.
var unrefusable = []string{"/commit", "/release", "/extend"}

// limitRate refuses a call for which its key has none left, and shows on every answer to a key with a rate what is left of it.
func (s *server) limitRate(c *gin.Context) {
	found := identityOf(c)
	if key := found.caller.key; found.err == nil && key != nil && key.Rate.Calls > 0 {
		q, allowed := s.takeRate(c.FullPath(), key)
		c.Header("RateLimit-Policy", fmt.Sprintf(`"key";q=%d;w=%d`, q.rate.Calls, q.rate.Window/time.Second))
		c.Header("RateLimit", fmt.Sprintf(`"key";r=%d;t=%s`, q.left, wholeSeconds(q.full)))
		if !allowed {
			c.Header("Cache-Control", "no-store")
			s.fail(c, overRate(q))
			c.Abort()
			return
		}
	}
	c.Next()
}

func (s *server) takeRate(path string, key *earmark.Key) (q quota, allowed bool) {
	for _, verb := range unrefusable { // mutation: unrefused-settlement
		if strings.HasPrefix(path, "/v1/reservations/") && strings.HasSuffix(path, verb) {
			return s.rates.look(key.ID, key.Rate), true
		}
	}
	return s.rates.take(key.ID, key.Rate)
}

func overRate(q quota) error {
	err := earmark.Errorf(earmark.CodeRateLimited, "the key may make %s at each server, and has none left; nothing was done", rateWords(q.rate))
	err.RetryAfter = q.wait
	return err
}

func rateWords(r earmark.Rate) string {
	calls, window := "calls", "second"
	if r.Calls == 1 {
		calls = "call"
	}
	if r.Window == time.Minute {
		window = "minute"
	}
	return fmt.Sprintf("%d %s a %s", r.Calls, calls, window)
}
