-- Takes constraints and indexes off the ledger's large tables, and remembers them.
CREATE SCHEMA bench;
CREATE TABLE bench.undone (place bigint GENERATED ALWAYS AS IDENTITY, sql text NOT NULL);
DO $$
DECLARE
    c_tables CONSTANT regclass[] := ARRAY ['earmark.reservations', 'earmark.reservation_budgets', 'earmark.entries']::regclass[];
    v        record;
BEGIN
    -- Foreign keys go first and come back last, since they rest on the others.
    INSERT INTO bench.undone (sql)
    SELECT format('ALTER TABLE %s ADD CONSTRAINT %I %s', conrelid::regclass, conname, pg_get_constraintdef(oid))
    FROM pg_constraint WHERE (conrelid = ANY (c_tables) OR confrelid = ANY (c_tables)) AND contype IN ('p', 'u', 'f')
    ORDER BY contype = 'f', conname;
    INSERT INTO bench.undone (sql)
    SELECT pg_get_indexdef(i.indexrelid) FROM pg_index i
    WHERE i.indrelid = ANY (c_tables) AND NOT EXISTS (SELECT FROM pg_constraint c WHERE c.conindid = i.indexrelid AND c.contype IN ('p', 'u'));
    FOR v IN SELECT i.indexrelid::regclass AS name FROM pg_index i
             WHERE i.indrelid = ANY (c_tables) AND NOT EXISTS (SELECT FROM pg_constraint c WHERE c.conindid = i.indexrelid AND c.contype IN ('p', 'u'))
    LOOP
        EXECUTE format('DROP INDEX %s', v.name);
    END LOOP;
    FOR v IN SELECT conrelid::regclass AS name, conname FROM pg_constraint
             WHERE (conrelid = ANY (c_tables) OR confrelid = ANY (c_tables)) AND contype IN ('p', 'u', 'f')
             ORDER BY contype <> 'f'
    LOOP
        EXECUTE format('ALTER TABLE %s DROP CONSTRAINT %I', v.name, v.conname);
    END LOOP;
END $$;
