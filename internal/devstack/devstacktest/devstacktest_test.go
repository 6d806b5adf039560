//go:build unix

package devstacktest_test

import (
	"context"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"
	"go.temporal.io/api/operatorservice/v1"
	"go.temporal.io/sdk/client"
	"go.uber.org/goleak"

	"github.com/earmark-dev/earmark/internal/devstack/devstacktest"
)

var stack = devstacktest.New(devstacktest.Postgres, devstacktest.Temporal)

func TestMain(m *testing.M) { goleak.VerifyTestMain(stack.Main(m)) }

func TestPostgresIsThere(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	conn, err := pgx.Connect(ctx, stack.PostgresURL())
	require.NoError(t, err)
	defer func() { require.NoError(t, conn.Close(ctx)) }()
	for _, statement := range []string{"CREATE DATABASE of_a_test", "DROP DATABASE of_a_test"} {
		_, err = conn.Exec(ctx, statement)
		require.NoError(t, err)
	}
}

func TestTemporalIsThere(t *testing.T) {
	t.Parallel()
	c, err := client.Dial(client.Options{HostPort: stack.TemporalAddress()})
	require.NoError(t, err)
	defer c.Close()
	listed, err := c.OperatorService().ListSearchAttributes(context.Background(),
		&operatorservice.ListSearchAttributesRequest{Namespace: client.DefaultNamespace})
	require.NoError(t, err)
	for _, name := range []string{"EarmarkTenant", "EarmarkScope", "EarmarkExpiresAt", "EarmarkState"} {
		require.Contains(t, listed.GetCustomAttributes(), name)
	}
}
