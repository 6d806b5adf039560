package model

import (
	"fmt"
	"time"

	"github.com/earmark-dev/earmark"
)

// No zone is further than this from UTC, nor changes its clocks by more.
const farFromUTC = 26 * time.Hour

// Bounds returns the window that holds at: start <= at < end. The end of a
// lifetime is nil. It panics on a time zone that does not exist.
func Bounds(w earmark.Window, at time.Time) (start time.Time, end *time.Time) {
	zone, err := time.LoadLocation(w.Timezone)
	if err != nil {
		panic(fmt.Sprintf("model: %v", err))
	}
	local := at.In(zone)
	switch w.Period {
	case earmark.PeriodLifetime:
		return time.Unix(0, 0).UTC(), nil
	case earmark.PeriodHour:
		start = at.UTC().Add(-time.Duration(local.Minute())*time.Minute - time.Duration(local.Second())*time.Second - time.Duration(local.Nanosecond()))
		return start, new(start.Add(time.Hour))
	}
	// The local date tells the window, except in an hour that comes twice.
	for _, n := range []int{0, -1, 1} {
		start, next := firstDay(w.Period, local, n), firstDay(w.Period, local, n+1)
		begin, finish := midnight(start, zone), midnight(next, zone)
		if !at.Before(begin) && at.Before(finish) {
			return begin, &finish
		}
	}
	panic(fmt.Sprintf("model: no %s of %s holds %s", w.Period, w.Timezone, at))
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
		panic("model: unknown period " + string(period))
	}
	return time.Date(year, month, day, 0, 0, 0, 0, time.UTC)
}

// midnight returns the instant at which date begins in zone. Where clocks are set
// over midnight, a midnight that is skipped is the moment of the change, and of
// one that comes twice the second counts.
func midnight(date time.Time, zone *time.Location) time.Time {
	var found time.Time
	at := date.Add(-farFromUTC)
	for {
		from, until := at.In(zone).ZoneBounds() // zero: since ever, for ever
		_, offsetSeconds := at.In(zone).Zone()
		reads := date.Add(-time.Duration(offsetSeconds) * time.Second) // when clocks of this offset read midnight
		switch {
		case !from.IsZero() && reads.Before(from):
			if found.IsZero() {
				found = from // skipped
			}
		case until.IsZero() || reads.Before(until):
			found = reads
		}
		if until.IsZero() || until.After(date.Add(farFromUTC)) {
			return found.UTC()
		}
		at = until
	}
}
