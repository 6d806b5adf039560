package postgres

import (
	"context"
	_ "embed"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/earmark-dev/earmark"
	"github.com/earmark-dev/earmark/internal/ctxtime"
)

//go:embed sql/events.sql
var eventsSQL string

const (
	countDenialsSQL = "SELECT earmark.count_denials(p_tenant => @tenant, p_denials => @denials)"
	pruneEventsSQL  = "SELECT earmark.prune_events(p_keep_ms => @keep_ms, p_max => @max)"
)

// position is a place in the feed: after event id of the transaction tx.
type position struct{ tx, id int64 }

func (p position) String() string { return fmt.Sprintf("evt_%d_%d", p.tx, p.id) }

// parsePosition returns the place of an event; the start of the feed for "".
func parsePosition(after string) (position, error) {
	if after == "" {
		return position{}, nil
	}
	tx, id, _ := strings.Cut(strings.TrimPrefix(after, "evt_"), "_")
	var p position
	var err error
	if p.tx, err = strconv.ParseInt(tx, 10, 64); err == nil {
		p.id, err = strconv.ParseInt(id, 10, 64)
	}
	if err != nil || !earmark.IsEventID(after) {
		return p, earmark.Invalidf("after", "%q is not the id of an event", earmark.Clip(after))
	}
	return p, nil
}

// Events returns what happened after a position, oldest first. It returns an event only after all
// transactions have ended that might still write an event before it, so a reader that continues at
// NextAfter misses none. The error is CodeInvalidRequest for a position that this database has not reached.
func (l *Ledger) Events(ctx context.Context, tenant string, f earmark.EventFilter) (earmark.EventPage, error) {
	limit := pageSize(f.Limit)
	if f.After == earmark.AfterNow {
		f.After, limit = "", 0
	}
	after, err := parsePosition(f.After)
	if err != nil {
		return earmark.EventPage{}, err
	}
	types := make([]string, len(f.Types))
	for i, name := range f.Types {
		types[i] = string(name)
	}
	var found struct {
		End    int64           `json:"end"`
		Ahead  bool            `json:"ahead"`
		Events []earmark.Event `json:"events"`
	}
	if err := readFrom(ctx, l.lists, &found, eventsSQL, planAnew, tenant, strconv.FormatInt(after.tx, 10), after.id, types, f.BudgetID, orNone(f.Within), limit); err != nil {
		return earmark.EventPage{}, err
	}
	if found.Ahead {
		return earmark.EventPage{}, earmark.Invalidf("after", "%q is of another database: this one has not come so far; read from the start", f.After)
	}
	page := earmark.EventPage{Data: found.Events, NextAfter: position{tx: max(found.End, after.tx)}.String()}
	if found.End <= after.tx {
		page.NextAfter = after.String()
	}
	if limit > 0 && len(found.Events) == limit {
		page.NextAfter = found.Events[limit-1].ID
	}
	return page, nil
}

// CountDenials counts denials of requests, so that their events are written. It returns after how long counts
// that wait for their minute are due; 0 if none wait. Without denials it writes what is due.
func (l *Ledger) CountDenials(ctx context.Context, tenant string, denials []earmark.Denials) (due time.Duration, err error) {
	var dueMS *int64
	if denials == nil {
		denials = []earmark.Denials{}
	}
	err = l.pool.QueryRow(ctx, countDenialsSQL, namedArgs{"tenant": tenant, "denials": denials}).Scan(&dueMS)
	if err != nil || dueMS == nil {
		return 0, fault(err)
	}
	return max(time.Millisecond, time.Duration(*dueMS)*time.Millisecond), nil
}

// pruneOld removes what is older than keep, in batches, and returns how many rows.
func (l *Ledger) pruneOld(ctx context.Context, sql string, keep time.Duration) (total int64, err error) {
	for {
		var gone int64
		if err := l.pool.QueryRow(ctx, sql, namedArgs{"keep_ms": keep.Milliseconds(), "max": pruneBatch}).Scan(&gone); err != nil {
			return total, fault(err)
		}
		total += gone
		if gone < pruneBatch {
			return total, nil
		}
		if !ctxtime.Sleep(ctx, pruneBreath) {
			return total, ctx.Err()
		}
	}
}
