package earmark

import "time"

// MaxOverviewReservations bounds how many open reservations an overview counts,
// and so what one costs; MaxOverviewOldest, how many of the oldest it shows.
const (
	MaxOverviewReservations = 100_000
	MaxOverviewOldest       = 10
)

// OverviewAges are the ages at which one group of an overview ends and the next
// begins.
func OverviewAges() []time.Duration {
	const day = 24 * time.Hour
	return []time.Duration{time.Minute, 5 * time.Minute, 15 * time.Minute, time.Hour, 6 * time.Hour, day}
}

// Overview is what is held at one moment: the open reservations, which are those
// that are held or in review, by age.
type Overview struct {
	At      time.Time `json:"at"` // by Postgres' clock, from which ages are counted
	Held    int64     `json:"held"`
	Review  int64     `json:"review"`
	Overdue int64     `json:"overdue"` // of those held
	Orphan  int64     `json:"orphan"`  // of both
	// Complete is false where there are more than MaxOverviewReservations; the
	// numbers are then of that many, and so too low.
	Complete bool `json:"complete"`
	// Ages has every group, the youngest first, empty ones too.
	Ages []OverviewAge `json:"ages"`
	// Oldest are the oldest open reservations, the oldest first.
	Oldest []Reservation `json:"oldest"`
}

// OverviewAge is the open reservations of one group of ages.
type OverviewAge struct {
	FromSeconds  int64   `json:"from_seconds"`
	ToSeconds    *int64  `json:"to_seconds"` // the first age beyond the group; null for the last
	Reservations int64   `json:"reservations"`
	Amounts      Amounts `json:"amounts"` // set aside by them; the largest int64 where the sum is larger
}
