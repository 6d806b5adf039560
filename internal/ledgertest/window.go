package ledgertest

import (
	"fmt"
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
	local := at.In(zone)
	switch w.Period {
	case earmark.PeriodLifetime:
		return time.Unix(0, 0).UTC(), nil
	case earmark.PeriodHour:
		start, finish := hour(local)
		return start, &finish
	case earmark.PeriodDay, earmark.PeriodWeek, earmark.PeriodMonth:
	}
	start = firstInstant(firstDay(w.Period, local, 0), zone)
	for n := 1; ; n++ {
		finish := firstInstant(firstDay(w.Period, local, n), zone)
		if at.Before(finish) {
			return start, &finish
		}
		start = finish // clocks went back from the next period into this one
	}
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

// firstDay returns the first date of the period n after that of local's date, as
// a date in UTC.
func firstDay(period earmark.Period, local time.Time, n int) time.Time {
	year, month, day := local.Date()
	switch period {
	case earmark.PeriodDay:
		day += n
	case earmark.PeriodWeek:
		sinceMonday := (int(local.Weekday()) + 6) % 7
		day += 7*n - sinceMonday
	case earmark.PeriodMonth:
		month, day = month+time.Month(n), 1
	default:
		panic("ledgertest: unknown period " + string(period))
	}
	return time.Date(year, month, day, 0, 0, 0, 0, time.UTC)
}

// firstInstant returns the first instant at which clocks in zone read date's
// midnight or later.
func firstInstant(date time.Time, zone *time.Location) time.Time {
	at := date.Add(-lookBack).In(zone)
	for first := true; ; first = false {
		until, ends := offsetEnds(at)
		_, offsetSeconds := at.Zone()
		reads := date.Add(-time.Duration(offsetSeconds) * time.Second) // when clocks with this offset show midnight
		switch {
		case !first && reads.Before(at):
			return at.UTC() // clocks skip midnight
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
