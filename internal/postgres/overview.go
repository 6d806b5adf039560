package postgres

import (
	"context"
	_ "embed"
	"time"

	"github.com/earmark-dev/earmark"
)

//go:embed sql/overview.sql
var overviewSQL string

// Overview counts the open reservations of a tenant, by age. within selects those all of whose scopes are
// one of these or below one; empty for all.
func (l *Ledger) Overview(ctx context.Context, tenant string, within []string) (earmark.Overview, error) {
	var endsSeconds []int64
	for _, age := range earmark.OverviewAges() {
		endsSeconds = append(endsSeconds, int64(age/time.Second))
	}
	var overview earmark.Overview
	err := readFrom(ctx, l.lists, &overview, overviewSQL, tenant, endsSeconds, earmark.MaxOverviewReservations, earmark.MaxOverviewOldest, orNone(within))
	return overview, err
}
