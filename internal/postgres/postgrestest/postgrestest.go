// Package postgrestest gives each test a migrated database of its own, cloned
// from a template, so that tests run in parallel.
package postgrestest

import (
	"context"
	"fmt"
	"net/url"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"github.com/earmark-dev/earmark/internal/postgres"
)

const template = "earmark_template"

var (
	templates sync.Map   // by the server's URL: a function that makes the template once
	cloning   sync.Mutex // Postgres refuses to clone a template that another session is cloning
	databases atomic.Int64
)

// URL clones the template on the server at serverURL and returns the clone's connection
// string. The end of the test drops the clone.
func URL(tb testing.TB, serverURL string) string {
	tb.Helper()
	ctx := context.Background()
	makeTemplate, _ := templates.LoadOrStore(serverURL, sync.OnceValue(func() error { return migrateTemplate(ctx, serverURL) }))
	require.NoError(tb, makeTemplate.(func() error)())

	name := fmt.Sprintf("earmark_test_%d", databases.Add(1))
	execute(tb, serverURL, "CREATE DATABASE "+name+" TEMPLATE "+template)
	tb.Cleanup(func() { execute(tb, serverURL, "DROP DATABASE "+name+" WITH (FORCE)") })
	clone, err := databaseURL(serverURL, name)
	require.NoError(tb, err)
	return clone
}

// Pool returns a pool on a clone (see URL). The end of the test closes it.
func Pool(tb testing.TB, serverURL string) *pgxpool.Pool {
	tb.Helper()
	pool, err := postgres.Open(context.Background(), URL(tb, serverURL))
	require.NoError(tb, err)
	tb.Cleanup(pool.Close)
	return pool
}

func migrateTemplate(ctx context.Context, serverURL string) error {
	conn, err := pgx.Connect(ctx, serverURL)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close(ctx) }()
	if _, err := conn.Exec(ctx, "CREATE DATABASE "+template); err != nil {
		return err
	}
	templateURL, err := databaseURL(serverURL, template)
	if err != nil {
		return err
	}
	pool, err := postgres.Open(ctx, templateURL)
	if err != nil {
		return err
	}
	defer pool.Close()
	_, err = postgres.Migrate(ctx, pool)
	return err
}

func execute(tb testing.TB, serverURL, sql string) {
	tb.Helper()
	cloning.Lock()
	defer cloning.Unlock()
	ctx := context.Background()
	conn, err := pgx.Connect(ctx, serverURL)
	require.NoError(tb, err)
	defer func() { require.NoError(tb, conn.Close(ctx)) }()
	_, err = conn.Exec(ctx, sql)
	require.NoError(tb, err)
}

func databaseURL(serverURL, database string) (string, error) {
	parsed, err := url.Parse(serverURL)
	if err != nil {
		return "", err
	}
	parsed.Path = "/" + database
	return parsed.String(), nil
}
