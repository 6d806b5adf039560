package postgres

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
)

// A promoted standby begins a new timeline. Its former primary may come back, or wake up, and take writes on the old
// timeline, which nobody will ever see. So this process remembers the newest timeline of each database cluster, connects to
// no primary on an older one, and drops the connections that it still has to such a primary.

// timelines are the newest ones that this process has seen, by the identifier that a primary and its standbys share.
var timelines = newestTimelines{newest: map[string]int64{}}

type newestTimelines struct {
	mu     sync.Mutex
	newest map[string]int64
}

// timeline is where a connection's server stands. It is 0 if the server did not say, as some managed ones do not.
type timeline struct {
	cluster string
	number  int64
}

// timelineKey is where a connection keeps its timeline.
const timelineKey = "earmark.timeline"

// errFormerPrimary makes pgx try the next host of the connection string.
var errFormerPrimary = errors.New("a former primary: another server of its cluster was promoted, and has what this one lacks")

// see notes a timeline and reports whether it is the newest of its cluster.
func (n *newestTimelines) see(t timeline) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	if t.number < n.newest[t.cluster] {
		return t.number == 0
	}
	n.newest[t.cluster] = t.number
	return true
}

// timelineSQL is for primaries; a standby follows another's timeline, and answers 0.
const timelineSQL = `SELECT (SELECT system_identifier FROM pg_control_system())::text,
	CASE WHEN pg_is_in_recovery() THEN 0 ELSE ('x' || left(pg_walfile_name(pg_current_wal_insert_lsn()), 8))::bit(32)::bigint END`

// avoidFormerPrimaries adds the checks to a pool's configuration.
func avoidFormerPrimaries(config *pgxpool.Config) {
	wanted := config.ConnConfig.ValidateConnect // target_session_attrs
	config.ConnConfig.ValidateConnect = func(ctx context.Context, conn *pgconn.PgConn) error {
		if wanted != nil {
			if err := wanted(ctx, conn); err != nil {
				return err
			}
		}
		t, err := readTimeline(ctx, conn)
		if err != nil {
			return err
		}
		conn.CustomData()[timelineKey] = t
		if !timelines.see(t) { // mutation: newest-timeline
			return errFormerPrimary
		}
		return nil
	}
	config.PrepareConn = func(_ context.Context, conn *pgx.Conn) (bool, error) {
		t, known := conn.PgConn().CustomData()[timelineKey].(timeline)
		return !known || timelines.see(t), nil
	}
}

func readTimeline(ctx context.Context, conn *pgconn.PgConn) (t timeline, err error) {
	results, err := conn.Exec(ctx, timelineSQL).ReadAll()
	var refused *pgconn.PgError
	switch {
	case errors.As(err, &refused) && !isConnectionFault(refused.Code):
		return timeline{}, nil // this Postgres has no such functions, or not for this account
	case err != nil:
		return timeline{}, err
	}
	row := results[0].Rows[0]
	t.cluster = string(row[0])
	if _, err := fmt.Sscan(string(row[1]), &t.number); err != nil {
		return timeline{}, fmt.Errorf("the timeline of Postgres: %w", err)
	}
	return t, nil
}

// isConnectionFault reports whether a SQLSTATE says that the server goes away: classes 08, 53 and 57.
func isConnectionFault(state string) bool {
	switch state[:2] {
	case "08", "53", "57":
		return true
	}
	return false
}
