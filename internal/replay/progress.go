package replay

import (
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/earmark-dev/earmark"
)

// How often progress is shown, and the period of the live rate.
const (
	redrawEvery = 250 * time.Millisecond
	lineEvery   = 5 * time.Second
	rateOver    = 3 * time.Second
)

// Progress says where and how a run shows how far it is.
type Progress struct {
	Out      io.Writer // nil: nowhere
	Terminal bool      // redraw two lines in place; else a line now and then
}

// view is progress being shown.
type view struct {
	Progress
	run   *run
	drawn bool
	seen  []moment // the last rateOver, oldest first
}

type moment struct {
	at   time.Time
	done int64
}

// show starts to show a run's progress; the returned function ends it.
func (p Progress) show(r *run) (done func()) {
	if p.Out == nil {
		return func() {}
	}
	fmt.Fprintf(p.Out, "run %s: %s rows over %s of the trace, at speed %g about %s; limit %s tokens on scope %s\n",
		r.id, earmark.FormatAmount(r.extent.Rows), round(r.extent.Last.Sub(r.extent.First)), r.Speed,
		round(r.atSpeed(r.extent.Last.Sub(r.extent.First))), earmark.FormatAmount(r.budget.Limit), r.Scope)
	every := lineEvery
	if p.Terminal {
		every = redrawEvery
	}
	v := &view{Progress: p, run: r, seen: []moment{{at: time.Now()}}}
	stop, stopped := make(chan struct{}), make(chan struct{})
	started := time.Now()
	go func() {
		defer close(stopped)
		ticker := time.NewTicker(every)
		defer ticker.Stop()
		for {
			select {
			case <-ticker.C:
				v.draw(time.Since(started))
			case <-stop:
				v.draw(time.Since(started))
				return
			}
		}
	}()
	return func() {
		close(stop)
		<-stopped
	}
}

func (v *view) draw(elapsed time.Duration) {
	c := v.run.tally.read()
	latency := v.run.tally.latency(&v.run.tally.admission)
	done, total := c.sent-c.inFlight, v.run.extent.Rows
	first := fmt.Sprintf("%s/%s rows  %s  trace %s", earmark.FormatAmount(done), earmark.FormatAmount(total), round(elapsed), round(c.simulated))
	second := fmt.Sprintf("%.0f/s  admitted %s  denied %s  in flight %d  p50 %.0f ms  p99 %.0f ms",
		v.rate(done), earmark.FormatAmount(c.admitted), earmark.FormatAmount(c.denied), c.inFlight, latency.P50MS, latency.P99MS)
	if c.unknown > 0 {
		second += "  unknown " + earmark.FormatAmount(c.unknown)
	}
	if v.run.stopped() {
		second += "  stopping"
	}
	if !v.Terminal {
		fmt.Fprintf(v.Out, "%s  %s\n", first, second)
		return
	}
	up := ""
	if v.drawn {
		up = "\x1b[2A"
	}
	v.drawn = true
	fmt.Fprintf(v.Out, "%s\r\x1b[2K%s %s\n\x1b[2K%s\n", up, bar(done, total), first, second)
}

// rate returns how many rows a second were finished recently.
func (v *view) rate(done int64) float64 {
	now := time.Now()
	v.seen = append(v.seen, moment{now, done})
	for len(v.seen) > 2 && now.Sub(v.seen[1].at) >= rateOver {
		v.seen = v.seen[1:]
	}
	return float64(done-v.seen[0].done) / max(now.Sub(v.seen[0].at).Seconds(), 1e-3)
}

func bar(done, total int64) string {
	const width = 24
	full := int(width * done / max(1, total))
	return fmt.Sprintf("%3d%% %s%s", 100*done/max(1, total), strings.Repeat("█", full), strings.Repeat("░", width-full))
}

func round(d time.Duration) time.Duration { return d.Round(time.Second) }
