package ledgertest

import (
	"fmt"
	"sort"
	"sync"
	"time"

	"github.com/earmark-dev/earmark"
)

// Clocks are at most 14 hours ahead of UTC, and change by a day at most.
const lookBack = (14 + 26) * time.Hour

// Bounds returns the window that holds at: start <= at < end. The end of a
// lifetime is nil. It panics on a time zone that does not exist.
func Bounds(w earmark.Window, at time.Time) (start time.Time, end *time.Time) {
	zone := location(w.Timezone)
	switch w.Period {
	case earmark.PeriodLifetime:
		return time.Unix(0, 0).UTC(), nil
	case earmark.PeriodMinute:
		return elapsed(w, time.Minute, at)
	case earmark.PeriodRolling: // one slice
		length := w.RollingSeconds / earmark.RollingSlices
		start = time.Unix(at.Unix()/length*length, 0).UTC()
		return start, new(start.Add(time.Duration(length) * time.Second))
	case earmark.PeriodHour:
		if w.Every > 1 || w.Anchor != "" {
			return elapsed(w, time.Hour, at)
		}
		start, finish := hour(at.In(zone))
		return start, &finish
	case earmark.PeriodDay, earmark.PeriodWeek, earmark.PeriodMonth, earmark.PeriodYear:
	}
	anchor := anchorOf(w)
	n := numberAt(w, anchor, at.In(zone))
	start = firstInstant(localStart(w, anchor, n), zone)
	for {
		n++
		finish := firstInstant(localStart(w, anchor, n), zone)
		if at.Before(finish) {
			return start, &finish
		}
		start = finish // clocks went back from the next window into this one
	}
}

// elapsed returns the window of equal length that holds at.
func elapsed(w earmark.Window, period time.Duration, at time.Time) (start time.Time, end *time.Time) {
	length := int64(period/time.Second) * max(w.Every, 1)
	start = firstInstant(anchorOf(w), location(w.Timezone))
	number := (at.Unix() - start.Unix()) / length
	if number*length > at.Unix()-start.Unix() {
		number-- // Go rounds towards zero
	}
	start = time.Unix(start.Unix()+number*length, 0).UTC()
	finish := time.Unix(start.Unix()+length, 0).UTC()
	return start, &finish
}

// anchorOf returns the local start of window 0, as a time in UTC.
func anchorOf(w earmark.Window) time.Time {
	if w.Anchor == "" {
		return time.Date(2001, 1, 1, 0, 0, 0, 0, time.UTC)
	}
	anchor, err := time.Parse(earmark.AnchorLayout, w.Anchor)
	if err != nil {
		panic(fmt.Sprintf("ledgertest: %v", err))
	}
	return anchor
}

// localStart returns the local start of window n, as a time in UTC. Anchor is that of window 0.
func localStart(w earmark.Window, anchor time.Time, n int) time.Time {
	n *= int(max(w.Every, 1))
	switch w.Period {
	case earmark.PeriodDay:
		return anchor.AddDate(0, 0, n)
	case earmark.PeriodWeek:
		return anchor.AddDate(0, 0, 7*n)
	case earmark.PeriodMonth:
		return addMonths(anchor, n)
	case earmark.PeriodYear:
		return addMonths(anchor, 12*n)
	case earmark.PeriodLifetime, earmark.PeriodMinute, earmark.PeriodHour, earmark.PeriodRolling:
	}
	panic("ledgertest: no dates in the period " + string(w.Period))
}

// addMonths returns the same day and time n months later, or the last day of a month
// without that day.
func addMonths(at time.Time, n int) time.Time {
	year, month, day := at.Date()
	last := time.Date(year, month+time.Month(n)+1, 0, 0, 0, 0, 0, time.UTC)
	return time.Date(last.Year(), last.Month(), min(day, last.Day()), at.Hour(), at.Minute(), 0, 0, time.UTC)
}

// numberAt returns the number of the last window that starts at what the clock of local
// shows, or before. It looks for it instead of computing it.
func numberAt(w earmark.Window, anchor, local time.Time) int {
	year, month, day := local.Date()
	shown := time.Date(year, month, day, local.Hour(), local.Minute(), local.Second(), local.Nanosecond(), time.UTC)
	const most = 1 << 20 // days from 1970 to 2199 are fewer
	return sort.Search(2*most, func(i int) bool { return localStart(w, anchor, i-most+1).After(shown) }) - most
}

// interval is start <= t < end.
type interval struct{ start, end time.Time }

// KeepWindow gives a window of a budget bounds other than those of Bounds, as if it was
// made with other time-zone data. It must not overlap an existing window.
func (l *Ledger) KeepWindow(budgetID string, start, end time.Time) {
	b := l.budgets[budgetID]
	b.kept = append(b.kept, interval{start, end})
}

// window returns the budget's window that contains at. A kept window stays, and others end
// where it starts and start where it ends.
func (b *budget) window(at time.Time) (start time.Time, end *time.Time) {
	start, end = Bounds(b.Window, at)
	for _, k := range b.kept {
		switch {
		case at.Before(k.start):
			if end == nil || k.start.Before(*end) {
				end = &k.start
			}
		case at.Before(k.end):
			return k.start, &k.end
		case start.Before(k.end):
			start = k.end
		}
	}
	return start, end
}

var locations sync.Map // *time.Location by name, because LoadLocation reads a file

func location(name string) *time.Location {
	if found, ok := locations.Load(name); ok {
		return found.(*time.Location)
	}
	zone, err := time.LoadLocation(name)
	if err != nil {
		panic(fmt.Sprintf("ledgertest: %v", err))
	}
	locations.Store(name, zone)
	return zone
}

// hour returns the bounds of the hour that contains local. A change of clocks by a part of
// an hour ends one hour and starts another.
func hour(local time.Time) (start, end time.Time) {
	start = local.Add(-time.Duration(local.Minute())*time.Minute - time.Duration(local.Second())*time.Second - time.Duration(local.Nanosecond()))
	end = start.Add(time.Hour)
	from, until := local.ZoneBounds() // zero means without a bound
	if !from.IsZero() && start.Before(from) && partOfHour(from) {
		start = from
	}
	if !until.IsZero() && end.After(until) && partOfHour(until) {
		end = until
	}
	return start.UTC(), end.UTC()
}

// partOfHour reports whether clocks change at an instant, and not by whole hours.
func partOfHour(at time.Time) bool {
	_, beforeSeconds := at.Add(-time.Nanosecond).Zone()
	_, afterSeconds := at.Zone()
	return (afterSeconds-beforeSeconds)%int(time.Hour/time.Second) != 0
}

// firstInstant returns the first instant at which clocks in zone read local's
// time or later.
func firstInstant(local time.Time, zone *time.Location) time.Time {
	at := local.Add(-lookBack).In(zone)
	for first := true; ; first = false {
		until, ends := offsetEnds(at)
		_, offsetSeconds := at.Zone()
		reads := local.Add(-time.Duration(offsetSeconds) * time.Second) // when clocks with this offset show it
		switch {
		case !first && reads.Before(at):
			return at.UTC() // clocks skip it
		case !ends || reads.Before(until):
			return reads
		}
		at = until
	}
}

// offsetEnds returns an instant after at until which the offset from UTC stays the same;
// false if it never changes.
func offsetEnds(at time.Time) (time.Time, bool) {
	_, until := at.ZoneBounds()
	if !until.IsZero() && !until.After(at) {
		until = at.Add(time.Hour) // Go 1.26 ends a leap year that only a rule describes a day early
	}
	return until, !until.IsZero()
}
