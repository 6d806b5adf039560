package replay

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"github.com/earmark-dev/earmark"
	"github.com/earmark-dev/earmark/client"
)

// Unit is the unit of a replay.
const Unit = "tokens"

// Bounds of a run.
const (
	// MaxSpeed keeps a schedule above the clock's resolution.
	MaxSpeed = 1_000_000
	// MaxInFlight is how many rows are under way at once, the number of connections that
	// the client keeps. Further arrivals wait, and are counted as delayed.
	MaxInFlight = 256
	// maxOpen is how many rows may stay without a decision or a settlement before
	// a run ends early.
	maxOpen = 10_000
	// maxWallTime bounds a run; a longer one is refused before it starts.
	maxWallTime = 7 * 24 * time.Hour
)

var errTooManyOpen = fmt.Errorf("the run ended early: %d rows had no answer", maxOpen)

// Options say what to replay. Path, Speed and MaxOutputTokens are required.
type Options struct {
	Path            string
	Speed           float64 // trace seconds a second, above 0 and at most MaxSpeed
	MaxOutputTokens int64   // reserved for each row on top of its context, from 1
	Limit           *int64  // of the budget, in tokens; nil: enough for every row
	Scope           string  // of the budget; empty: one of the run's own
	MaxRows         int64   // 0: all
	Seed            uint64
	Progress        Progress
}

// run is a replay under way.
type run struct {
	Options
	api     *client.Client
	id      string
	extent  Extent
	budget  *earmark.Budget
	tenant  string // of the client's key
	started time.Time
	stop    <-chan struct{} // closed: no more arrivals, and models end at once
	giveUp  context.CancelCauseFunc

	tally  tally
	places chan struct{} // one for each row in flight
	rows   sync.WaitGroup

	openMu sync.Mutex
	open   []openRow
}

// Run replays a trace against api and then audits the ledger. When ctx ends, arrivals stop,
// rows in flight settle, and the report covers that part.
//
// The report is valid if it is not nil, even with an error, which then says what could not
// be done. api must make one attempt a call (WithMaxAttempts(1)), because the run repeats
// calls itself and counts those without an answer at first.
func Run(ctx context.Context, api *client.Client, options Options) (*Report, error) {
	work := context.WithoutCancel(ctx)
	stop, giveUp := context.WithCancelCause(ctx)
	defer giveUp(nil)
	r := &run{Options: options, api: api, id: newRunID(), stop: stop.Done(), giveUp: giveUp, places: make(chan struct{}, MaxInFlight)}
	if r.Scope == "" {
		r.Scope = "replay/" + r.id
	}
	if err := r.measure(); err != nil {
		return nil, fmt.Errorf("%s: %w", r.Path, err)
	}
	if err := r.findTenant(work); err != nil {
		return nil, err
	}
	if err := r.createBudget(work); err != nil {
		return nil, err
	}

	done := r.Progress.show(r)
	r.started = time.Now()
	err := r.arrive(work)
	r.rows.Wait()
	r.resolve(work)
	wall := time.Since(r.started)
	done()

	report := r.report(wall)
	if cause := context.Cause(stop); errors.Is(cause, errTooManyOpen) {
		err = errors.Join(err, cause)
	}
	audit, auditErr := r.audit(work)
	report.Audit = audit
	if auditErr != nil {
		err = errors.Join(err, fmt.Errorf("the audit could not be done: %w", auditErr))
	}
	return report, err
}

// newRunID names a run so that no two collide.
func newRunID() string {
	var random [3]byte
	_, _ = rand.Read(random[:]) // never fails, see crypto/rand
	return time.Now().UTC().Format("20060102-150405-") + hex.EncodeToString(random[:])
}

func (r *run) measure() error {
	file, err := os.Open(r.Path)
	if err != nil {
		return err
	}
	defer func() { _ = file.Close() }()
	if r.extent, err = Measure(file, r.MaxOutputTokens, r.MaxRows); err != nil {
		return err
	}
	span := r.extent.Last.Sub(r.extent.First)
	if wall := span.Seconds() / r.Speed; wall > maxWallTime.Seconds() {
		return fmt.Errorf("its %s take %.0f hours at speed %g; at most %.0f are allowed", span, wall/3600, r.Speed, maxWallTime.Hours())
	}
	return nil
}

// findTenant asks for whom the client calls: ids of reservations are computed from it.
func (r *run) findTenant(ctx context.Context) error {
	caller, err := r.api.Whoami(ctx)
	switch {
	case earmark.ErrorCode(err) == earmark.CodeNotFound: // a server of an earlier release, without keys
		r.tenant = earmark.DefaultTenant
	case err != nil:
		return err
	default:
		r.tenant = caller.Tenant
	}
	return nil
}

func (r *run) createBudget(ctx context.Context) (err error) {
	limit := r.extent.RoomTokens
	if r.Limit != nil {
		limit = *r.Limit
	}
	r.budget, err = r.api.CreateBudget(ctx, earmark.BudgetRequest{Scope: r.Scope, Unit: Unit, Limit: &limit}.WithDefaults())
	if earmark.ErrorCode(err) == earmark.CodeBudgetExists {
		return fmt.Errorf("a run needs a budget of its own: %w; choose another scope, or none", err)
	}
	return err
}

// arrive sends every row at its time. It never waits for an answer: a slow server gets the
// same arrivals as a fast one, up to MaxInFlight.
func (r *run) arrive(ctx context.Context) error {
	file, err := os.Open(r.Path)
	if err != nil {
		return err
	}
	defer func() { _ = file.Close() }()
	reader, err := NewReader(file)
	if err != nil {
		return err
	}
	behind := false // since a row had to wait for a place
	for sent := int64(0); sent < r.extent.Rows; sent++ {
		row, err := reader.Next()
		if errors.Is(err, io.EOF) {
			return errors.New("the trace was cut short while it was replayed")
		}
		if err != nil {
			return err
		}
		due := r.started.Add(r.atSpeed(row.At.Sub(r.extent.First)))
		if early := time.Until(due); early > 0 {
			behind = false
			sleep(r.stop, early)
		}
		if r.stopped() || !r.takePlace(&behind) {
			return nil
		}
		r.send(ctx, row, due, behind)
	}
	return nil
}

// takePlace waits for a place in flight; it returns false if the run is stopped.
func (r *run) takePlace(behind *bool) bool {
	select {
	case r.places <- struct{}{}:
		return true
	default:
	}
	*behind = true
	select {
	case r.places <- struct{}{}:
		return true
	case <-r.stop:
		return false
	}
}

func (r *run) stopped() bool {
	select {
	case <-r.stop:
		return true
	default:
		return false
	}
}

func (r *run) send(ctx context.Context, row Row, due time.Time, delayed bool) {
	r.tally.update(func(c *counts) {
		c.sent++
		c.inFlight++
		c.simulated = row.At.Sub(r.extent.First)
		if delayed {
			c.delayed++
			c.longestDelay = max(c.longestDelay, time.Since(due))
		}
	})
	r.rows.Go(func() {
		r.live(ctx, row, due)
		r.tally.update(func(c *counts) { c.inFlight-- })
		<-r.places
	})
}

// atSpeed turns a duration of the trace into one of the clock.
func (r *run) atSpeed(d time.Duration) time.Duration {
	return time.Duration(float64(d) / r.Speed)
}

// sleep waits for d or until done is closed; it reports whether it waited for all of d.
func sleep(done <-chan struct{}, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-done:
		return false
	}
}
