// Package bench measures Earmark beside its alternatives: the floors that Temporal
// and Postgres set, and the same job as samples and applications do it. All of them
// run on one Temporal and one Postgres, in turns, round after round, so that a
// machine that slows down slows all of them; what counts are ratios within a round.
package bench
