//go:build unix

package chaos_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"go.temporal.io/api/serviceerror"
	temporal "go.temporal.io/sdk/client"

	"github.com/earmark-dev/earmark"
	"github.com/earmark-dev/earmark/client"
	"github.com/earmark-dev/earmark/internal/ctxtime"
)

// Limits of the driver.
const (
	callLimit   = 8 * time.Second // of one call; an honest answer takes less
	signalLimit = 4 * time.Second
	firstPause  = 200 * time.Millisecond // between two attempts; it doubles
	mostPause   = 4 * time.Second
	mostAtOnce  = 150 // requests under way; past that none begins
	// knownLimit is how long after everything is mended each outcome has to be known.
	knownLimit = 60 * time.Second
	probeLimit = 60 * time.Second
	probePause = 100 * time.Millisecond
	// scriptProbe marks the requests of probe, which are not repeated.
	scriptProbe = "probe"
)

// driver makes requests and remembers what came of them.
type driver struct {
	tenants  []*tenant
	temporal temporal.Client
	seed     uint64
	former   bool // some servers are of a version that makes no corrections and has no grants

	stop  context.CancelFunc // begins no more requests
	ctx   context.Context    // of the calls
	abort context.CancelFunc
	group sync.WaitGroup
	slots chan struct{}

	mu         sync.Mutex
	lives      []*life
	trespasses []trespass
	skipped    int
	recoveries []time.Duration
	walBytes   int64
	took       time.Duration
}

func newDriver(c *cluster, seed uint64) *driver {
	c.t.Helper()
	d := &driver{temporal: c.Client(), seed: seed, former: c.former, slots: make(chan struct{}, mostAtOnce)}
	d.ctx, d.abort = context.WithCancel(context.Background())
	c.t.Cleanup(d.abort)
	for _, name := range tenantNames {
		d.tenants = append(d.tenants, newTenant(c, name))
	}
	return d
}

// begin lets requests arrive until end, at random times.
func (d *driver) begin(c *cluster, rate float64) {
	var arriving context.Context
	arriving, d.stop = context.WithCancel(d.ctx)
	begun := time.Now()
	d.group.Go(func() {
		rng := rand.New(rand.NewPCG(d.seed, 3))
		next := begun
		for n := 0; ; n++ {
			next = next.Add(time.Duration(rng.ExpFloat64() / rate * float64(time.Second)))
			if !ctxtime.Sleep(arriving, time.Until(next)) {
				d.took = time.Since(begun)
				return
			}
			select {
			case d.slots <- struct{}{}:
				d.group.Go(func() {
					defer func() { <-d.slots }()
					d.live(n)
				})
			default:
				d.mu.Lock()
				d.skipped++
				d.mu.Unlock()
			}
		}
	})
	for _, own := range d.tenants {
		d.group.Go(func() { own.budgets.raise(arriving, own.clients) })
		for i, budget := range own.budgets.list {
			if budget.granted {
				rng := rand.New(rand.NewPCG(d.seed, uint64(10+i)))
				d.group.Go(func() { d.granting(arriving, own, budget, rng) })
			}
		}
	}
	d.group.Go(func() {
		for ctxtime.Sleep(arriving, time.Second) {
			d.walBytes = max(d.walBytes, c.temporalLogBytes())
		}
	})
}

// end lets no more requests arrive, and waits until the outcome of each is known.
// The servers answer again by now; what has no answer then stays unknown.
func (d *driver) end() {
	d.stop()
	timer := time.AfterFunc(knownLimit, d.abort)
	defer timer.Stop()
	d.group.Wait()
}

func (d *driver) add(l *life) *life {
	l.ID = earmark.ReservationID(l.Tenant, l.Key)
	d.mu.Lock()
	defer d.mu.Unlock()
	d.lives = append(d.lives, l)
	return l
}

// recovered notes how long it took until requests were admitted again.
func (d *driver) recovered(took time.Duration) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.recoveries = append(d.recoveries, took)
}

// answer is what a call came back with.
type answer struct {
	reservation *earmark.Reservation
	accepted    bool
	err         error
}

// call is a call of the API.
type call func(ctx context.Context, api *client.Client) answer

// once makes a call and notes what came of it. A server below 0 is any.
func (d *driver) once(l *life, verb string, usage earmark.Amounts, server int, call call) attempt {
	clients := d.tenant(l.Tenant).clients
	if server < 0 {
		server = rand.IntN(len(clients))
	}
	a := attempt{Verb: verb, Server: server + 1, Usage: usage, Sent: time.Now()}
	got := call(d.ctx, clients[server])
	a.Answered = time.Now()
	a.Outcome, a.Code = outcomeOf(got)
	if got.err != nil {
		a.Error = got.err.Error()
		var known *earmark.Error
		if errors.As(got.err, &known) && known.Reservation != nil {
			got.reservation = known.Reservation
		}
	}
	if got.reservation != nil {
		a.State, a.Budgets = got.reservation.State, got.reservation.Budgets
		l.mu.Lock()
		l.ExpiresAt = got.reservation.ExpiresAt
		l.mu.Unlock()
	}
	l.note(a)
	return a
}

// until repeats a call until its outcome is known, or its caller has died.
func (d *driver) until(l *life, verb string, usage earmark.Amounts, call call) attempt {
	for pause := firstPause; ; pause = min(2*pause, mostPause) {
		a := d.once(l, verb, usage, -1, call)
		if a.Outcome != unknown || l.Mortal || !ctxtime.Sleep(d.ctx, pause/2+rand.N(pause)) {
			return a
		}
	}
}

func outcomeOf(got answer) (outcome, earmark.Code) {
	code := earmark.ErrorCode(got.err)
	switch {
	case got.err == nil && got.accepted:
		return accepted, ""
	case got.err == nil:
		return done, ""
	case errors.Is(got.err, context.Canceled), code == earmark.CodeUnavailable, code == earmark.CodeAdmissionUnknown:
		return unknown, code
	case code == earmark.CodeInternal, code == "":
		return bug, code
	}
	return refused, code
}

func (d *driver) reserve(l *life) attempt { return d.until(l, verbReserve, nil, reserving(l)) }

func reserving(l *life) call {
	return func(ctx context.Context, api *client.Client) answer {
		reservation, err := api.Reserve(ctx, l.Key, l.Request)
		return answer{reservation: reservation, err: err}
	}
}

func (d *driver) commit(l *life, usage earmark.Amounts) attempt {
	return d.until(l, verbCommit, usage, func(ctx context.Context, api *client.Client) answer {
		return settled(api.Commit(ctx, l.ID, usage))
	})
}

func (d *driver) release(l *life) attempt {
	return d.until(l, verbRelease, nil, func(ctx context.Context, api *client.Client) answer {
		return settled(api.Release(ctx, l.ID, "nothing was spent"))
	})
}

func settled(s client.Settled, err error) answer { return answer{s.Reservation, s.Accepted, err} }

func (d *driver) extend(l *life, ttl time.Duration) attempt {
	return d.until(l, verbExtend, nil, func(ctx context.Context, api *client.Client) answer {
		reservation, err := api.Extend(ctx, l.ID, ttl)
		return answer{reservation: reservation, err: err}
	})
}

// correctBy is what each correction changes.
var correctBy = earmark.Amounts{unitTokens: 1}

func (d *driver) correct(l *life) attempt {
	request := earmark.CorrectionRequest{Amounts: correctBy, Reason: "the invoice differs"}
	return d.until(l, verbCorrect, nil, func(ctx context.Context, api *client.Client) answer {
		reservation, err := api.Correct(ctx, l.ID, "chaos", request)
		return answer{reservation: reservation, err: err}
	})
}

func (d *driver) charge(l *life) attempt {
	request := earmark.UsageRequest{Scopes: l.Request.Scopes, Amounts: l.Request.Amounts}
	return d.until(l, verbCharge, l.Request.Amounts, func(ctx context.Context, api *client.Client) answer {
		reservation, err := api.ChargeUsage(ctx, l.Key, request)
		return answer{reservation: reservation, err: err}
	})
}

// signal commits as a worker in any language may: by a signal to the workflow.
func (d *driver) signal(l *life, usage earmark.Amounts) attempt {
	return d.until(l, verbSignal, usage, func(ctx context.Context, _ *client.Client) answer {
		ctx, cancel := context.WithTimeout(ctx, signalLimit)
		defer cancel()
		err := d.temporal.SignalWorkflow(ctx, "reservation-"+l.ID, "", "commit", map[string]any{"usage": usage})
		var notFound *serviceerror.NotFound
		switch {
		case err == nil:
			return answer{accepted: true}
		case errors.As(err, &notFound): // its lease has run out
			return answer{err: earmark.Errorf(earmark.CodeNotFound, "no open workflow: %w", err)}
		}
		return answer{err: earmark.Errorf(earmark.CodeUnavailable, "Temporal did not answer: %w", err)}
	})
}

// probe asks each server for an admission, again and again, from now on. The
// function that it returns waits, and returns how long after since the last of them
// has admitted; 0 when one never did.
func (d *driver) probe(since time.Time) func() time.Duration {
	times := make([]time.Duration, len(d.tenants[0].clients))
	var group sync.WaitGroup
	for i := range times {
		group.Go(func() {
			for n := 0; time.Since(since) < probeLimit; n++ {
				l := d.add(&life{Tenant: tenantNames[0], Script: scriptProbe, Key: fmt.Sprintf("probe-%d-%d-%d", since.UnixNano(), i, n), Request: earmark.ReservationRequest{
					Scopes: []string{scopeProbe}, Amounts: earmark.Amounts{unitTokens: 1}, TTLSeconds: 1}.WithDefaults()})
				if d.once(l, verbReserve, nil, i, reserving(l)).Outcome == done {
					times[i] = time.Since(since)
					return
				}
				time.Sleep(probePause)
			}
		})
	}
	return func() time.Duration {
		group.Wait()
		if slices.Contains(times, 0) {
			return 0
		}
		return slices.Max(times)
	}
}
