package bench

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/earmark-dev/earmark/internal/ctxtime"
)

// durations lets holds last for a while, as those of real requests do. The clients admit at any
// moment at which no settlement is due, so that the rate is that of the whole system once as many
// lifecycles end as begin.
func (r *run) durations(ctx context.Context) error {
	main, err := r.serving(ctx, mainName)
	if err != nil {
		return err
	}
	ways := []*way{main.byHTTP("earmark", "earmark", scopeOf)}
	if r.Base != "" {
		base, err := r.serving(ctx, baseName)
		if err != nil {
			return err
		}
		ways = append(ways, base.byHTTP("base", "earlier build", scopeOf))
	}
	second := time.Second
	if r.Quick {
		second /= 50
	}
	table := Table{Title: fmt.Sprintf("Lifecycles by how long the hold lasts, %d clients", r.Clients),
		Columns: []string{"hold", "way", "lifecycles/s", "× the earlier build", "CPU of the servers, ms", "of these Temporal", "billable actions"}}
	f := &r.report.figures
	for _, seconds := range []int{0, 1, 5, 30} {
		hold := time.Duration(seconds) * second
		for round := range min(sweepRounds, r.Rounds) {
			for i := range ways { // each goes first in turn
				w := ways[(i+round)%len(ways)]
				r.say("  holds of %s: %s", hold, w.title)
				b, err := w.held(ctx, r.Clients, hold, r.Duration)
				if err != nil {
					return err
				}
				r.noted(fmt.Sprintf("%s, holds of %s", w.title, hold), b)
				key := fmt.Sprintf("durations.%d.%s", seconds, w.key)
				f.add(key+".lifecycles_per_second", "1/s", b.perSecond())
				f.add(key+".cpu_ms", "ms", b.each(b.used.servers()*1000))
				f.add(key+".cpu_temporal_ms", "ms", b.each(b.used.temporal*1000))
			}
		}
		for _, w := range ways {
			key := fmt.Sprintf("durations.%d.%s", seconds, w.key)
			if err := r.heldActions(ctx, w, key, hold); err != nil {
				return err
			}
			ratio := ""
			if r.Base != "" && w.key != "base" {
				f.ratio(key+".per_base", key+".lifecycles_per_second", fmt.Sprintf("durations.%d.base.lifecycles_per_second", seconds))
				ratio = f.text(key + ".per_base")
			}
			table.row(hold.String(), w.title, f.text(key+".lifecycles_per_second"), ratio, f.short(key+".cpu_ms"), f.short(key+".cpu_temporal_ms"), f.short(key+".actions"))
		}
	}
	table.Notes = []string{"The rate counts settlements while admissions go on, from the first one that is due; the CPU is that of all lifecycles, from the first admission until the last workflow has closed."}
	r.report.Tables = append(r.report.Tables, table)
	return nil
}

// heldActions counts what Temporal bills for one lifecycle.
func (r *run) heldActions(ctx context.Context, w *way, key string, hold time.Duration) error {
	id, err := w.admit(ctx, serials.Add(1))
	if err != nil {
		return fmt.Errorf("%s: %w", w.title, err)
	}
	ctxtime.Sleep(ctx, hold)
	if err := w.settle(ctx, id); err != nil {
		return fmt.Errorf("%s: %w", w.title, err)
	}
	events, err := historyOf(ctx, w.on.temporal, w.workflowID(id))
	if err != nil {
		return fmt.Errorf("%s: %w", w.title, err)
	}
	r.report.figures.add(key+".actions", "actions", float64(actions(events)))
	return nil
}

// held runs clients that admit, and that settle each hold when it has lasted. The block's rate is
// that of the settlements during the last part, which is as long as duration; all else counts
// every lifecycle.
func (w *way) held(ctx context.Context, clients int, hold, duration time.Duration) (*block, error) {
	type due struct {
		id        string
		at        time.Time
		admission time.Duration
	}
	var mu sync.Mutex
	var queue []due // in the order of at
	steady := int64(0)
	b, err := w.measure(ctx, 2*hold+duration, func(ctx context.Context, t *tally) {
		begun := time.Now()
		end := begun.Add(hold + duration)
		next := func() (d due, found, left bool) {
			mu.Lock()
			defer mu.Unlock()
			if len(queue) == 0 {
				return due{}, false, false
			}
			if d = queue[0]; d.at.After(time.Now()) {
				return d, false, true
			}
			queue = queue[1:]
			return d, true, true
		}
		var wait sync.WaitGroup
		for range clients {
			wait.Go(func() {
				for ctx.Err() == nil {
					d, found, left := next()
					now := time.Now()
					switch {
					case found:
						err := w.settle(ctx, d.id)
						t.add(d.id, d.admission, time.Since(now), err)
						if now = time.Now(); err == nil && now.After(begun.Add(hold)) && now.Before(end) {
							mu.Lock()
							steady++
							mu.Unlock()
						}
					case now.Before(end):
						id, err := w.admit(ctx, serials.Add(1))
						if err != nil {
							t.add("", 0, 0, err)
							ctxtime.Sleep(ctx, failurePause)
							continue
						}
						mu.Lock()
						queue = append(queue, due{id, time.Now().Add(hold), time.Since(now)})
						mu.Unlock()
					case left:
						ctxtime.Sleep(ctx, min(time.Until(d.at), hold))
					default:
						return
					}
				}
			})
		}
		wait.Wait()
	})
	if err != nil {
		return nil, err
	}
	b.steady = float64(steady) / duration.Seconds()
	return b, nil
}
