package postgres_test

import (
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"
)

var update = flag.Bool("update", false, "write the schema's snapshot anew")

// snapshotSQL lists everything that the migrations make, one line each, in words that do not
// depend on the version of Postgres.
const snapshotSQL = `
SELECT line FROM (
    SELECT 'table ' || c.relname || ' column ' || a.attname || ' ' || format_type(a.atttypid, a.atttypmod)
           || CASE WHEN a.attnotnull THEN ' not null' ELSE '' END || coalesce(' default ' || pg_get_expr(d.adbin, d.adrelid), '') || CASE a.attidentity WHEN '' THEN '' ELSE ' identity' END AS line
    FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped LEFT JOIN pg_attrdef d ON (d.adrelid, d.adnum) = (c.oid, a.attnum)
    WHERE c.relnamespace = 'earmark'::regnamespace AND c.relkind = 'r'
    UNION ALL SELECT 'table ' || relname || ' with ' || array_to_string(reloptions, ', ') FROM pg_class WHERE relnamespace = 'earmark'::regnamespace AND reloptions IS NOT NULL
    UNION ALL SELECT 'type ' || c.relname || ' (' || string_agg(a.attname || ' ' || format_type(a.atttypid, a.atttypmod), ', ' ORDER BY a.attnum) || ')'
    FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid WHERE c.relnamespace = 'earmark'::regnamespace AND c.relkind = 'c' GROUP BY c.relname
    UNION ALL SELECT 'constraint ' || conrelid::regclass || ' ' || conname || ' ' || pg_get_constraintdef(oid) FROM pg_constraint WHERE connamespace = 'earmark'::regnamespace AND contype <> 'n'
    UNION ALL SELECT 'index ' || indexdef FROM pg_indexes WHERE schemaname = 'earmark'
    UNION ALL SELECT 'trigger ' || tgrelid::regclass || ' ' || tgname || ' ' || tgenabled::text || ' ' || pg_get_triggerdef(oid) FROM pg_trigger WHERE NOT tgisinternal
    UNION ALL SELECT 'function ' || proname || '(' || pg_get_function_arguments(oid) || ') returns ' || pg_get_function_result(oid)
           || ' ' || CASE provolatile WHEN 'i' THEN 'immutable' WHEN 's' THEN 'stable' ELSE 'volatile' END || CASE WHEN prosecdef THEN ' security definer' ELSE '' END || coalesce(' set ' || array_to_string(proconfig, ', '), '')
    FROM pg_proc WHERE pronamespace = 'earmark'::regnamespace
) AS lines ORDER BY line COLLATE "C"`

// The schema is the one that the snapshot shows, so that a change of it shows in a review. Run
// the test with -update to write the snapshot.
func TestSchemaIsTheSnapshot(t *testing.T) {
	b := setup(t)
	rows, err := b.pool.Query(ctx(), snapshotSQL)
	require.NoError(t, err)
	lines, err := pgx.CollectRows(rows, pgx.RowTo[string])
	require.NoError(t, err)
	schema := strings.Join(lines, "\n") + "\n"
	path := filepath.Join("..", "..", "migrations", "snapshot.txt")
	if *update {
		require.NoError(t, os.WriteFile(path, []byte(schema), 0o600))
	}
	snapshot, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Equal(t, string(snapshot), schema, "if the change is meant, run: go test ./internal/postgres -run %s -update", t.Name())
}

// releasedCalls are the calls that programs of a release that is still in use may make. A release
// adds its own and takes out those that no supported release makes. There is no release yet: these
// are the calls of the first one.
var releasedCalls = []string{
	"SELECT earmark.preflight(p_id => $1::text, p_tenant => $2::text, p_hash => $3::text, p_scopes => $4::text[], p_amounts => $5::jsonb, p_any_scope => $6::boolean)",
	"SELECT earmark.decide(p_tenant => $1::text, p_scopes => $2::text[], p_amounts => $3::jsonb, p_any_scope => $4::boolean)",
	"SELECT earmark.reserve(p_id => $1::text, p_tenant => $2::text, p_hash => $3::text, p_scopes => $4::text[], p_amounts => $5::jsonb, p_ttl_ms => $6::bigint, p_on_expiry => $7::text, p_metadata => $8::jsonb, p_workflow_id => $9::text, p_admit_by => $10::timestamptz, p_released => $11::boolean, p_actor => $12::text, p_any_scope => $13::boolean, p_at => $14::timestamptz)",
	"SELECT earmark.reserve_batch(p_tenant => $1::text, p_calls => $2::jsonb, p_actor => $3::text)",
	"SELECT earmark.commit(p_tenant => $1::text, p_id => $2::text, p_usage => $3::jsonb, p_actor => $4::text, p_reason => $5::text, p_attempt => $6::text)",
	"SELECT earmark.refuse_overflow(p_tenant => $1::text, p_id => $2::text, p_usage => $3::jsonb, p_actor => $4::text)",
	"SELECT earmark.commit_batch(p_calls => $1::jsonb)",
	"SELECT earmark.release(p_tenant => $1::text, p_id => $2::text, p_final => $3::boolean, p_actor => $4::text, p_reason => $5::text)",
	"SELECT earmark.expire(p_tenant => $1::text, p_id => $2::text, p_actor => $3::text, p_reason => $4::text)",
	"SELECT earmark.extend(p_tenant => $1::text, p_id => $2::text, p_ttl_ms => $3::bigint, p_actor => $4::text, p_reason => $5::text)",
	"SELECT earmark.adopt(p_tenant => $1::text, p_id => $2::text, p_actor => $3::text, p_reason => $4::text)",
	"SELECT earmark.charge(p_id => $1::text, p_tenant => $2::text, p_hash => $3::text, p_scopes => $4::text[], p_amounts => $5::jsonb, p_metadata => $6::jsonb, p_at => $7::timestamptz, p_actor => $8::text, p_reason => $9::text)",
	"SELECT earmark.correct(p_tenant => $1::text, p_id => $2::text, p_correction_id => $3::text, p_hash => $4::text, p_amounts => $5::jsonb, p_actor => $6::text, p_reason => $7::text)",
	"SELECT earmark.sweep(p_grace_ms => $1::bigint, p_max => $2::integer, p_actor => $3::text, p_reason => $4::text)",
	"SELECT earmark.prune(p_tenant => $1::text, p_keep_ms => $2::bigint, p_after_at => $3::timestamptz, p_after_id => $4::text, p_max => $5::integer, p_dry => $6::boolean, p_actor => $7::text)",
	"SELECT earmark.create_budget(p_id => $1::text, p_tenant => $2::text, p_scope => $3::text, p_unit => $4::text, p_limit => $5::bigint, p_period => $6::text, p_timezone => $7::text, p_enforcement => $8::text, p_soft_ceiling => $9::bigint, p_overage => $10::text, p_actor => $11::text)",
	"SELECT earmark.change_budget(p_tenant => $1::text, p_id => $2::text, p_limit => $3::bigint, p_enforcement => $4::text, p_soft_ceiling => $5::bigint, p_overage => $6::text, p_actor => $7::text, p_reason => $8::text)",
	"SELECT earmark.archive_budget(p_tenant => $1::text, p_id => $2::text, p_actor => $3::text)",
	"SELECT earmark.create_key(p_id => $1::text, p_tenant => $2::text, p_name => $3::text, p_role => $4::text, p_scopes => $5::text[], p_hash => $6::bytea, p_expires_at => $7::timestamptz, p_actor => $8::text, p_reason => $9::text)",
	"SELECT earmark.rotate_key(p_tenant => $1::text, p_id => $2::text, p_new_id => $3::text, p_hash => $4::bytea, p_overlap_ms => $5::bigint, p_actor => $6::text, p_reason => $7::text)",
	"SELECT earmark.revoke_key(p_tenant => $1::text, p_id => $2::text, p_actor => $3::text, p_reason => $4::text)",
	"SELECT earmark.mark_keys_used(p_ids => $1::text[])",
	"SELECT earmark.create_sign_in(p_hash => $1::bytea, p_key_id => $2::text, p_lasts_ms => $3::bigint)",
	"SELECT earmark.end_sign_in(p_hash => $1::bytea)",
	"SELECT earmark.create_tenant(p_id => $1::text, p_actor => $2::text, p_reason => $3::text)",
	"SELECT earmark.set_tenant_disabled(p_id => $1::text, p_disabled => $2::boolean, p_actor => $3::text, p_reason => $4::text)",
	"SELECT earmark.add_price_version(p_after => $1::bigint, p_tenant => $2::text, p_prices => $3::jsonb, p_source => $4::text, p_actor => $5::text, p_reason => $6::text)",
	"SELECT earmark.add_own_prices(p_after => $1::bigint, p_tenant => $2::text, p_entries => $3::jsonb, p_source => $4::text, p_actor => $5::text, p_reason => $6::text)",
	"SELECT earmark.counted_units(p_id => $1::text, p_tenant => $2::text, p_hash => $3::text, p_scopes => $4::text[])",
	"SELECT id, tenant, workflow_id, state, scopes, amounts, created_at, expires_at, on_expiry, request_hash FROM earmark.claim_checks(p_age_ms => $1::bigint, p_max => $2::integer)",
	"SELECT earmark.mark_checked(p_tenant => $1::text, p_id => $2::text, p_orphan => $3::boolean, p_refreshed => $4::boolean)",
	"SELECT earmark.mark_guarded(p_ids => $1::text[])",
	"SELECT earmark.mark_paused(p_ids => $1::text[])",
	"SELECT earmark.mark_unnotified(p_tenant => $1::text, p_id => $2::text)",
	"SELECT limit_amount, enforcement, soft_ceiling, overage, archived_at FROM earmark.lock_budget(p_tenant => $1::text, p_id => $2::text)",
	"SELECT earmark.result('same', r) FROM earmark.reservations r WHERE r.tenant = $1 AND r.id = $2",
	"SELECT earmark.functions_fingerprint()",
}

// Postgres finds what each released call and query names: no argument was renamed, taken away, or
// added without a default, and no function, table or column of a query is gone. The queries are those
// of testdata/released: the former texts of internal/postgres/sql, named by the last schema whose
// programs send them.
func TestReleasedCallsStillWork(t *testing.T) {
	b := setup(t)
	conn, err := b.pool.Acquire(ctx())
	require.NoError(t, err)
	defer conn.Release()
	for _, call := range releasedCalls {
		_, err := conn.Conn().Prepare(ctx(), call, call)
		require.NoError(t, err, call)
	}
	queries, err := filepath.Glob(filepath.Join("testdata", "released", "*.sql"))
	require.NoError(t, err)
	require.NotEmpty(t, queries)
	for _, path := range queries {
		query, err := os.ReadFile(path)
		require.NoError(t, err)
		_, err = conn.Conn().Prepare(ctx(), path, string(query))
		require.NoError(t, err, path)
	}
}
