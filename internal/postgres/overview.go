package postgres

import (
	"context"
	_ "embed"
	"time"

	"github.com/earmark-dev/earmark"
)

//go:embed sql/overview.sql
var overviewSQL string

// Overview counts the open reservations of a tenant, by age.
func (l *Ledger) Overview(ctx context.Context, tenant string) (earmark.Overview, error) {
	var endsSeconds []int64
	for _, age := range earmark.OverviewAges() {
		endsSeconds = append(endsSeconds, int64(age/time.Second))
	}
	var overview earmark.Overview
	err := l.read(ctx, &overview, overviewSQL, tenant, endsSeconds, earmark.MaxOverviewReservations, earmark.MaxOverviewOldest)
	return overview, err
}
