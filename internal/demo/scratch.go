package demo

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
)

var (
	//go:embed sql/open.sql
	openSQL string
	//go:embed sql/create.sql
	createSQL string
	//go:embed sql/drop.sql
	dropSQL string
	//go:embed sql/unlock.sql
	unlockSQL string
	//go:embed sql/account.sql
	accountSQL string
	//go:embed sql/check.sql
	checkSQL string
	//go:embed sql/lock.sql
	lockSQL string
	//go:embed sql/add.sql
	addSQL string
	//go:embed sql/hold.sql
	holdSQL string
	//go:embed sql/settle.sql
	settleSQL string
	//go:embed sql/counted.sql
	countedSQL string
)

// cleanupTimeout bounds the cleanup of a run, also after Ctrl-C.
const cleanupTimeout = 10 * time.Second

// scratch is a schema with one table, in which the usual strategies keep their counters.
type scratch struct {
	pool  *pgxpool.Pool
	owner *pgx.Conn // its session holds the lock that excludes a second demo
}

func openScratch(ctx context.Context, pool *pgxpool.Pool) (*scratch, error) {
	owner, err := pgx.ConnectConfig(ctx, pool.Config().ConnConfig)
	if err != nil {
		return nil, err
	}
	s := &scratch{pool: pool, owner: owner}
	var alone, ours bool
	err = owner.QueryRow(ctx, openSQL).Scan(&alone, &ours)
	switch {
	case err != nil:
	case !alone:
		err = errors.New("another demo runs on this database; try again when it has ended")
	case !ours:
		err = errors.New("the database has a schema earmark_demo that no demo made; it is left alone, so use another database")
	default:
		if _, err = owner.Exec(ctx, createSQL, pgx.QueryExecModeSimpleProtocol); err == nil {
			return s, nil
		}
		err = errors.Join(fmt.Errorf("make the scratch schema earmark_demo: %w", err), s.drop(ctx))
	}
	return nil, errors.Join(err, s.disconnect(ctx))
}

// close drops the schema, even if ctx has ended.
func (s *scratch) close(ctx context.Context) error {
	return errors.Join(s.drop(ctx), s.disconnect(ctx))
}

// drop does not use the owner's connection, which a cancelled query has closed.
func (s *scratch) drop(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanupTimeout)
	defer cancel()
	if _, err := s.pool.Exec(ctx, dropSQL); err != nil {
		return fmt.Errorf("drop the scratch schema earmark_demo: %w", err)
	}
	return nil
}

func (s *scratch) disconnect(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanupTimeout)
	defer cancel()
	// The server ends a session some time after the request to end it, and the lock must be
	// free now. A session that a cancelled query has ended holds none.
	_, _ = s.owner.Exec(ctx, unlockSQL)
	return s.owner.Close(ctx)
}

// counter is one account in the scratch table.
type counter struct {
	pool *pgxpool.Pool
	id   int64
	peak atomic.Int64 // the largest count so far; every statement that adds reports the count
}

func (s *scratch) newCounter(ctx context.Context) (*counter, error) {
	c := &counter{pool: s.pool}
	return c, s.pool.QueryRow(ctx, accountSQL, limitTokens).Scan(&c.id)
}

// queryer is a pool or a transaction.
type queryer interface {
	QueryRow(ctx context.Context, sql string, args ...any) pgx.Row
}

// fits runs a query for the used tokens, and reports whether another request fits.
func (c *counter) fits(ctx context.Context, on queryer, sql string) (bool, error) {
	var used int64
	err := on.QueryRow(ctx, sql, c.id).Scan(&used)
	return used+requestTokens <= limitTokens, err
}

// add adds to the used tokens and returns the sum.
func (c *counter) add(ctx context.Context, on queryer, tokens int64) (used int64, err error) {
	if err = on.QueryRow(ctx, addSQL, c.id, tokens).Scan(&used); err == nil {
		c.saw(used)
	}
	return used, err
}

// hold sets a request aside if it fits.
func (c *counter) hold(ctx context.Context, tokens int64) (held bool, err error) {
	var counted int64
	err = c.pool.QueryRow(ctx, holdSQL, c.id, tokens).Scan(&counted)
	if errors.Is(err, pgx.ErrNoRows) {
		return false, nil
	}
	c.saw(counted)
	return err == nil, err
}

func (c *counter) saw(counted int64) {
	for {
		peak := c.peak.Load()
		if counted <= peak || c.peak.CompareAndSwap(peak, counted) {
			return
		}
	}
}

func (c *counter) counted(ctx context.Context) (tokens int64, err error) {
	err = c.pool.QueryRow(ctx, countedSQL, c.id).Scan(&tokens)
	return tokens, err
}

func (c *counter) end(ctx context.Context) (outcome, error) {
	counted, err := c.counted(ctx)
	return outcome{peakTokens: c.peak.Load(), endTokens: counted}, err
}
