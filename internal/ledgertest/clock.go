package ledgertest

import "strings"

// VirtualClock is a clock in the schema test that stands still until the test sets test.clock; see ReplaceClock.
const VirtualClock = `
CREATE SCHEMA test;
CREATE TABLE test.clock (at timestamptz NOT NULL);
INSERT INTO test.clock VALUES ('epoch');
CREATE FUNCTION test.clock_timestamp() RETURNS timestamptz LANGUAGE sql AS 'SELECT at FROM test.clock';
GRANT USAGE ON SCHEMA test TO PUBLIC;
GRANT SELECT ON test.clock TO PUBLIC;`

// ReplaceClock returns the SQL that makes the ledger of a database use the function
// clock_timestamp() of a schema, in sessions that begin afterwards. Postgres looks a function up in
// pg_catalog first unless the search path names pg_catalog later.
func ReplaceClock(schema string) string { return strings.ReplaceAll(replaceClock, "SCHEMA", schema) }

const replaceClock = `
-- Defaults are bound to their functions when they are made.
ALTER TABLE earmark.budgets ALTER created_at SET DEFAULT SCHEMA.clock_timestamp();
ALTER TABLE earmark.reservations ALTER created_at SET DEFAULT SCHEMA.clock_timestamp(), ALTER checked_at SET DEFAULT SCHEMA.clock_timestamp();
ALTER TABLE earmark.entries ALTER created_at SET DEFAULT SCHEMA.clock_timestamp();
DO $$
DECLARE f regprocedure;
BEGIN
    EXECUTE format('ALTER DATABASE %I SET search_path = SCHEMA, pg_catalog, public', current_database());
    FOR f IN SELECT oid FROM pg_proc WHERE pronamespace = 'earmark'::regnamespace AND EXISTS (SELECT FROM unnest(proconfig) AS c WHERE starts_with(c, 'search_path=')) LOOP
        EXECUTE format('ALTER FUNCTION %s SET search_path = SCHEMA, pg_catalog', f);
    END LOOP;
    UPDATE earmark.function_sets SET fingerprint = earmark.functions_fingerprint(); -- the audit compares it
END $$`
