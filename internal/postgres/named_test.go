package postgres

import (
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"
)

// The statement and the arguments are those of pgx.NamedArgs, at the first call and later.
func TestNamedArgs(t *testing.T) {
	t.Parallel()
	const sql = "SELECT f(p_id => @id, p_tenant => @tenant, p_again => @id, p_text => '@id')"
	for _, values := range []map[string]any{{"id": 1, "tenant": "a"}, {"tenant": nil, "id": "two", "more": 3}} {
		wantSQL, wantArgs, err := pgx.NamedArgs(values).RewriteQuery(t.Context(), nil, sql, nil)
		require.NoError(t, err)
		gotSQL, gotArgs, err := namedArgs(values).RewriteQuery(t.Context(), nil, sql, nil)
		require.NoError(t, err)
		require.Equal(t, wantSQL, gotSQL)
		require.Equal(t, wantArgs, gotArgs)
	}
}
