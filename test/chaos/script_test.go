//go:build unix

package chaos_test

import (
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/earmark-dev/earmark"
	"github.com/earmark-dev/earmark/internal/ctxtime"
)

// script is what one request does after it is admitted.
type script struct {
	name   string
	weight int
	run    func(d *driver, l *life, rng *rand.Rand)
}

var scripts = []script{
	{"commit less", 24, func(d *driver, l *life, rng *rand.Rand) {
		d.think(l, rng)
		d.commit(l, usage(l, rng, less))
	}},
	{"commit all", 8, func(d *driver, l *life, rng *rand.Rand) {
		d.think(l, rng)
		d.commit(l, usage(l, rng, all))
	}},
	{"commit more", 10, func(d *driver, l *life, rng *rand.Rand) {
		d.think(l, rng)
		d.commit(l, usage(l, rng, more))
	}},
	{"commit twice at once", 10, func(d *driver, l *life, rng *rand.Rand) {
		d.think(l, rng)
		used := usage(l, rng, less)
		together(func() { d.commit(l, used) }, func() { d.commit(l, used) })
	}},
	{"commit more twice at once", 8, func(d *driver, l *life, rng *rand.Rand) { // each attempt is refused for itself, where a budget rejects that
		d.think(l, rng)
		used := usage(l, rng, more)
		together(func() { d.commit(l, used) }, func() { d.commit(l, used) })
	}},
	{"commit again", 6, func(d *driver, l *life, rng *rand.Rand) {
		d.think(l, rng)
		used := usage(l, rng, less)
		d.commit(l, used)
		d.think(l, rng)
		d.commit(l, used)
	}},
	{"commit by signal", 8, func(d *driver, l *life, rng *rand.Rand) {
		d.think(l, rng)
		used := usage(l, rng, []measure{less, all, more}[rng.IntN(3)])
		if d.signal(l, used).Outcome == refused { // too late for that
			d.commit(l, used)
		}
	}},
	{"release", 8, func(d *driver, l *life, rng *rand.Rand) {
		d.think(l, rng)
		d.release(l)
	}},
	{"commit against release", 5, func(d *driver, l *life, rng *rand.Rand) {
		d.think(l, rng)
		used := usage(l, rng, less)
		together(func() { d.commit(l, used) }, func() { d.release(l) })
	}},
	{"commit and correct", 6, func(d *driver, l *life, rng *rand.Rand) {
		d.think(l, rng)
		if d.commit(l, usage(l, rng, less)).Outcome == done && !d.former {
			d.correct(l)
		}
	}},
	{"extend and commit", 8, func(d *driver, l *life, rng *rand.Rand) {
		for range 1 + rng.IntN(2) {
			d.think(l, rng)
			d.extend(l, time.Duration(1+rng.IntN(5))*time.Second)
		}
		d.commit(l, usage(l, rng, less))
	}},
	{"abandon", 8, func(*driver, *life, *rand.Rand) {}},
	{"commit late", 6, func(d *driver, l *life, rng *rand.Rand) {
		l.mu.Lock()
		expiresAt := l.ExpiresAt
		l.mu.Unlock()
		if expiresAt != nil {
			ctxtime.Sleep(d.ctx, time.Until(*expiresAt)+rand64(rng, grace+cleanupSlack))
		}
		d.commit(l, usage(l, rng, []measure{less, more}[rng.IntN(2)]))
	}},
	{"charge", 6, nil}, // without a reservation
}

// mortalIn is how many requests there are for one whose caller dies at the first
// outcome that it does not know.
const mortalIn = 12

// live is one request from its beginning to its end.
func (d *driver) live(n int) {
	rng := rand.New(rand.NewPCG(d.seed, 1_000+uint64(n)))
	script := draw(rng)
	// Each tenant has a request with the same key, and with other contents.
	l := d.add(&life{Number: n, Tenant: tenantNames[n%len(tenantNames)], Script: script.name, Key: fmt.Sprintf("chaos-%d-%d", d.seed, n/len(tenantNames)),
		Request: request(rng), Mortal: rng.IntN(mortalIn) == 0})
	if script.run == nil {
		d.charge(l)
		return
	}
	d.reserve(l)
	if l.admitted() {
		if verb := rng.IntN(trespassIn * len(trespassVerbs)); verb < len(trespassVerbs) {
			d.group.Go(func() { d.trespass(l, trespassVerbs[verb]) })
		}
		script.run(d, l, rng)
	}
}

func draw(rng *rand.Rand) script {
	total := 0
	for _, s := range scripts {
		total += s.weight
	}
	left := rng.IntN(total)
	for _, s := range scripts {
		if left -= s.weight; left < 0 {
			return s
		}
	}
	panic("unreachable: the weights were counted")
}

// Sizes of requests.
const (
	mostTokens     = 400
	mostRequests   = 5
	mostTTLSeconds = 10
)

func request(rng *rand.Rand) earmark.ReservationRequest {
	user := fmt.Sprintf("/u%d", rng.IntN(20))
	scopes := [][]string{
		{scopeHot + user}, {scopeHot}, {scopeHot + user}, {scopeSoft + user}, {scopeReject + user}, {scopeFit + user},
		{scopeLeft + user, scopeRight + user}, {scopeRight, scopeLeft}, {scopeAll + user, scopeHot}, {scopeEach + user + "/chat"}, {scopeHot, scopeEach + user},
		{scopeTopUp + user}, {scopeCredit + user}, {scopeRolls + user},
	}[rng.IntN(14)]
	r := earmark.ReservationRequest{
		Scopes: scopes, Amounts: earmark.Amounts{unitTokens: 1 + rng.Int64N(mostTokens)}, TTLSeconds: 1 + rng.Int64N(mostTTLSeconds),
		OnExpiry: []earmark.OnExpiry{earmark.OnExpiryRelease, earmark.OnExpiryRelease, earmark.OnExpiryRelease, earmark.OnExpiryCommit, earmark.OnExpiryReview}[rng.IntN(5)],
	}
	if rng.IntN(4) == 0 {
		r.Amounts[unitRequests] = 1 + rng.Int64N(mostRequests)
	}
	return r.WithDefaults()
}

// think is the time that a model takes, mostly within the lease.
func (d *driver) think(l *life, rng *rand.Rand) {
	ctxtime.Sleep(d.ctx, time.Duration(rng.Float64()*0.6*float64(l.Request.TTL())))
}

// measure is how much of the reserved amount is used.
type measure int

const (
	less measure = iota
	all
	more
)

func usage(l *life, rng *rand.Rand, m measure) earmark.Amounts {
	used := earmark.Amounts{}
	for _, unit := range []string{unitTokens, unitRequests} { // in order, for the seed's sake
		reserved, ok := l.Request.Amounts[unit]
		switch {
		case !ok:
		case m == less:
			used[unit] = rng.Int64N(reserved + 1)
		case m == all:
			used[unit] = reserved
		default:
			used[unit] = reserved + 1 + rng.Int64N(reserved/2+1)
		}
	}
	return used
}

func together(calls ...func()) {
	var group sync.WaitGroup
	for _, call := range calls {
		group.Go(call)
	}
	group.Wait()
}
