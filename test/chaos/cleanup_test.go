//go:build unix

package chaos_test

import (
	"fmt"
	"slices"
	"time"

	"github.com/earmark-dev/earmark"
)

// unguarded compares workflows and reservations once more, at the end.
func (c *cluster) unguarded(rows map[string]*row) []string {
	var problems []string
	unheld, unguarded := c.guardians()
	for _, id := range unheld {
		problems = append(problems, fmt.Sprintf("%s: the workflow is open, and nothing is held\n  ledger:  %s", id, rows[id[len("reservation-"):]].evidence()))
	}
	for _, id := range unguarded {
		problems = append(problems, fmt.Sprintf("%s: nobody guards it\n  ledger:  %s", id, rows[id].evidence()))
	}
	return problems
}

// expiry is a lease that ran out: how long after its end it was resolved, and from
// when on that was possible at all.
type expiry struct {
	id         string
	late       time.Duration // resolved − expires_at
	lateAtAll  time.Duration // resolved − the moment from which somebody could
	postgres   bool          // Postgres was away at that time
	noSweeper  bool          // no process could have cleaned up then
	resolvedBy string
}

// expiries measures every lease that had run out before it was resolved, by
// Postgres' clock.
func (c *cluster) expiries(rows map[string]*row) []expiry {
	var list []expiry
	idle := c.idle()
	for _, r := range rows {
		resolved := slices.IndexFunc(r.entries, func(e entry) bool { return slices.Contains([]string{"expire", "review", "commit", "release"}, e.Kind) })
		if r.ExpiresAt == nil || resolved < 0 || r.entries[resolved].CreatedAt.Before(*r.ExpiresAt) {
			continue
		}
		e := r.entries[resolved]
		x := expiry{id: r.ID, late: e.CreatedAt.Sub(*r.ExpiresAt), lateAtAll: e.CreatedAt.Sub(*r.ExpiresAt), resolvedBy: e.Actor}
		from := *r.ExpiresAt
		for _, s := range c.broken.of(postgresName) {
			if s.from.Before(e.CreatedAt) && s.to.After(from) {
				from, x.postgres = s.to, true
			}
		}
		x.lateAtAll = max(0, e.CreatedAt.Sub(from))
		x.noSweeper = x.lateAtAll > grace+cleanupSlack && !sweptBy(idle, from.Add(grace), e.CreatedAt)
		list = append(list, x)
	}
	return list
}

// idle lists for each process when its sweeper could not work: it did not run, or
// was still in its first grace, or had no way to Postgres.
func (c *cluster) idle() [][]span {
	var all [][]span
	for _, n := range c.nodes {
		var spans []span
		for _, s := range c.broken.of(n.name) {
			spans = append(spans, span{s.from, s.to.Add(grace)})
		}
		all = append(all, append(spans, c.broken.of(n.postgres.name, postgresName)...))
	}
	return all
}

// sweptBy reports whether one of the sweepers could work without a break for as long
// as cleanup may take.
func sweptBy(idle [][]span, from, to time.Time) bool {
	for _, spans := range idle {
		for at := from; at.Add(cleanupSlack).Before(to); {
			broken := slices.IndexFunc(spans, func(s span) bool { return s.from.Before(at.Add(cleanupSlack)) && s.to.After(at) })
			if broken < 0 {
				return true
			}
			at = spans[broken].to
		}
	}
	return false
}

// late lists the leases that were resolved too late. None is left out. Where Postgres
// was away meanwhile, the time counts from when it was back; where no process at all
// could clean up, that is said, and it is no failure of one.
func (c *cluster) late(rows map[string]*row) []string {
	var problems []string
	for _, x := range c.expiries(rows) {
		if x.lateAtAll > grace+cleanupSlack && !x.noSweeper {
			problems = append(problems, fmt.Sprintf("%s: resolved %.1f s after its lease was over, by the %s\n  ledger:  %s", x.id, x.late.Seconds(), x.resolvedBy, rows[x.id].evidence()))
		}
	}
	for _, r := range rows {
		if r.State == earmark.StateHeld {
			problems = append(problems, r.ID+": leaked\n  ledger:  "+r.evidence())
		}
	}
	return problems
}
