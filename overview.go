package earmark

import "time"

// MaxOverviewReservations bounds how many open reservations an overview counts, and so its
// cost. MaxOverviewOldest is how many of the oldest it shows.
const (
	MaxOverviewReservations = 100_000
	MaxOverviewOldest       = 10
)

// OverviewAges returns the ages at which one group of an overview ends and the next begins.
func OverviewAges() []time.Duration {
	const day = 24 * time.Hour
	return []time.Duration{time.Minute, 5 * time.Minute, 15 * time.Minute, time.Hour, 6 * time.Hour, day}
}

// Overview shows the open reservations (held or in review) at one moment, by age.
type Overview struct {
	At      time.Time `json:"at"` // by Postgres' clock; ages are counted from it
	Held    int64     `json:"held"`
	Review  int64     `json:"review"`
	Overdue int64     `json:"overdue"` // of those held
	Orphan  int64     `json:"orphan"`  // of held and review
	// Complete is false if there are more than MaxOverviewReservations. The numbers then
	// count only that many, and are too low.
	Complete bool `json:"complete"`
	// Ages has every group, youngest first, including empty ones.
	Ages []OverviewAge `json:"ages"`
	// Oldest are the oldest open reservations, oldest first.
	Oldest []Reservation `json:"oldest"`
}

// OverviewAge is one group of open reservations, by age.
type OverviewAge struct {
	FromSeconds  int64   `json:"from_seconds"`
	ToSeconds    *int64  `json:"to_seconds"` // the first age beyond the group; null for the last group
	Reservations int64   `json:"reservations"`
	Amounts      Amounts `json:"amounts"` // reserved by them; math.MaxInt64 if the sum is larger
}
