-- CHECK conditions and triggers: what the tables refuse from every session.
--
-- Postgres parses the CHECK conditions of a table for every statement, and lists of values
-- are slow to parse: they took a quarter of the time of a commit. One function for each
-- table is compiled once in a session.

CREATE OR REPLACE FUNCTION earmark.is_reservation(p_state text, p_on_expiry text, p_used boolean, p_settled boolean, p_expires boolean, p_estimated boolean) RETURNS boolean
LANGUAGE plpgsql IMMUTABLE AS $$
BEGIN
    RETURN (p_state IN ('held', 'committed', 'released', 'expired', 'review')
        AND p_on_expiry IN ('release', 'commit', 'review')
        AND (p_state = 'committed') = p_used
        AND CASE WHEN p_state IN ('held', 'review') THEN NOT p_settled AND p_expires ELSE p_settled END
        AND (NOT p_estimated OR p_state = 'committed')) IS TRUE;
END $$;

CREATE OR REPLACE FUNCTION earmark.is_entry(p_kind text, p_reservation_id text, p_budget_id text, p_window_start timestamptz, p_reserved_delta bigint,
    p_committed_delta bigint, p_reserved_after bigint, p_pruned_entries bigint, p_pruned_reservations bigint, p_actor text) RETURNS boolean
LANGUAGE plpgsql IMMUTABLE AS $$
BEGIN
    RETURN (p_kind IN ('reserve', 'commit', 'estimate', 'release', 'expire', 'charge', 'extend', 'review', 'reject', 'refuse', 'budget', 'adopt', 'correction', 'checkpoint')
        AND p_actor <> ''
        AND (p_reservation_id IS NOT NULL OR p_budget_id IS NOT NULL)
        AND (p_window_start IS NULL) = (p_reserved_after IS NULL)
        AND (p_window_start IS NOT NULL OR (p_reserved_delta = 0 AND p_committed_delta = 0))
        AND CASE p_kind WHEN 'checkpoint' THEN p_window_start IS NOT NULL AND p_reservation_id IS NULL AND p_reserved_delta = 0
                                               AND p_pruned_entries > 0 AND p_pruned_reservations > 0
                        ELSE p_pruned_entries IS NULL AND p_pruned_reservations IS NULL END) IS TRUE;
END $$;

CREATE OR REPLACE FUNCTION earmark.is_grant(p_amount bigint, p_reserved bigint, p_committed bigint, p_voided bigint, p_effective_at timestamptz,
    p_expires_at timestamptz, p_reason text, p_rolled_from timestamptz, p_rolled_left bigint) RETURNS boolean
LANGUAGE plpgsql IMMUTABLE AS $$
BEGIN
    RETURN (p_reserved >= 0 AND p_committed >= 0 AND p_voided >= 0 AND p_amount - p_reserved - p_committed - p_voided >= 0
        AND (p_amount > 0 OR p_rolled_from IS NOT NULL)
        AND (p_rolled_from IS NULL) = (p_rolled_left IS NULL)
        AND (p_expires_at IS NULL OR p_expires_at > p_effective_at)
        AND p_reason <> '') IS TRUE;
END $$;

-- Entries are append-only. Only earmark.prune turns on the setting that allows a deletion,
-- and only while it runs; earmark.check_pruned checks what it deletes.
CREATE OR REPLACE FUNCTION earmark.refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'DELETE' AND current_setting('earmark.pruning', true) = 'on' THEN
        RETURN NULL;
    END IF;
    RAISE EXCEPTION 'entries are append-only: % is refused (R4)', TG_OP USING ERRCODE = 'restrict_violation'; -- mutation: append-only
END $$;

-- Refuses every deletion of entries but two: entries of reservations that were settled long
-- ago, and former checkpoints. In each window a checkpoint must stand for exactly the
-- deleted entries.
CREATE OR REPLACE FUNCTION earmark.check_pruned() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF EXISTS (SELECT 1 FROM gone g LEFT JOIN earmark.reservations r ON r.id = g.reservation_id
               WHERE g.kind <> 'checkpoint' AND (r.settled_at < clock_timestamp() - earmark.min_retention()) IS NOT TRUE) THEN
        RAISE EXCEPTION 'entries are append-only: DELETE of what was not settled long ago is refused (R4)' USING ERRCODE = 'restrict_violation';
    END IF;
    IF EXISTS (SELECT 1 FROM gone WHERE id > (SELECT entry_id FROM earmark.usage_watermark)) THEN
        RAISE EXCEPTION 'entries are append-only: DELETE of what is not in usage_rollups yet is refused' USING ERRCODE = 'restrict_violation';
    END IF;
    IF EXISTS (SELECT 1
               FROM (SELECT budget_id, window_start, sum(reserved_delta) AS reserved, sum(committed_delta) AS committed, max(id) AS id,
                            sum(coalesce(pruned_entries, 1)) AS entries FROM gone WHERE window_start IS NOT NULL GROUP BY 1, 2) AS g
                    LEFT JOIN earmark.entries e ON e.budget_id = g.budget_id AND e.window_start = g.window_start AND e.kind = 'checkpoint'
               WHERE (g.id, g.reserved, g.committed, g.entries) IS DISTINCT FROM (e.id, e.reserved_delta, e.committed_delta, e.pruned_entries)) THEN
        RAISE EXCEPTION 'entries are append-only: DELETE of what no checkpoint stands for is refused (R4)' USING ERRCODE = 'restrict_violation';
    END IF;
    RETURN NULL;
END $$;

-- Identifies the functions as they are in this database, so that the audit can find a
-- change by hand.
CREATE OR REPLACE FUNCTION earmark.functions_fingerprint() RETURNS text LANGUAGE plpgsql STABLE AS $$
BEGIN
    RETURN (SELECT md5(string_agg(concat_ws(' ', p.proname, p.pronargs, p.proconfig, p.prosrc), E'\n' ORDER BY p.proname, p.pronargs))
            FROM pg_proc p WHERE p.pronamespace = 'earmark'::regnamespace);
END $$;

-- Existing triggers and constraints stay: replacing one would lock its table.
DO $$
BEGIN
    IF NOT EXISTS (SELECT FROM pg_constraint WHERE conname = 'reservations_state_check' AND conrelid = 'earmark.reservations'::regclass) THEN
        ALTER TABLE earmark.reservations ADD CONSTRAINT reservations_state_check
            CHECK (earmark.is_reservation(state, on_expiry, usage IS NOT NULL, settled_at IS NOT NULL, expires_at IS NOT NULL, estimated));
    END IF;
    IF NOT EXISTS (SELECT FROM pg_constraint WHERE conname = 'entries_kind_check' AND conrelid = 'earmark.entries'::regclass) THEN
        ALTER TABLE earmark.entries ADD CONSTRAINT entries_kind_check
            CHECK (earmark.is_entry(kind, reservation_id, budget_id, window_start, reserved_delta, committed_delta, reserved_after,
                                    pruned_entries, pruned_reservations, actor));
    END IF;
    IF NOT EXISTS (SELECT FROM pg_constraint WHERE conname = 'grants_row_check' AND conrelid = 'earmark.grants'::regclass) THEN
        ALTER TABLE earmark.grants ADD CONSTRAINT grants_row_check
            CHECK (earmark.is_grant(amount, reserved, committed, voided, effective_at, expires_at, reason, rolled_from, rolled_left)) NOT VALID;
    END IF;
    -- ENABLE ALWAYS: the trigger also runs if replication or a restore has switched
    -- ordinary triggers off.
    IF NOT EXISTS (SELECT FROM pg_trigger WHERE tgname = 'entries_append_only' AND tgrelid = 'earmark.entries'::regclass) THEN
        CREATE TRIGGER entries_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON earmark.entries
            FOR EACH STATEMENT EXECUTE FUNCTION earmark.refuse_change();
        ALTER TABLE earmark.entries ENABLE ALWAYS TRIGGER entries_append_only;
    END IF;
    IF NOT EXISTS (SELECT FROM pg_trigger WHERE tgname = 'entries_pruned' AND tgrelid = 'earmark.entries'::regclass) THEN
        CREATE TRIGGER entries_pruned AFTER DELETE ON earmark.entries REFERENCING OLD TABLE AS gone
            FOR EACH STATEMENT EXECUTE FUNCTION earmark.check_pruned();
        ALTER TABLE earmark.entries ENABLE ALWAYS TRIGGER entries_pruned;
    END IF;
    IF NOT EXISTS (SELECT FROM pg_trigger WHERE tgname = 'audit_log_append_only' AND tgrelid = 'earmark.audit_log'::regclass) THEN
        CREATE TRIGGER audit_log_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON earmark.audit_log
            FOR EACH STATEMENT EXECUTE FUNCTION earmark.refuse_audit_change();
        ALTER TABLE earmark.audit_log ENABLE ALWAYS TRIGGER audit_log_append_only;
    END IF;
    IF NOT EXISTS (SELECT FROM pg_trigger WHERE tgname = 'reservations_follow_expiry' AND tgrelid = 'earmark.reservations'::regclass) THEN
        CREATE TRIGGER reservations_follow_expiry AFTER UPDATE OF expires_at, on_expiry ON earmark.reservations
            FOR EACH ROW WHEN ((OLD.expires_at, OLD.on_expiry) IS DISTINCT FROM (NEW.expires_at, NEW.on_expiry))
            EXECUTE FUNCTION earmark.follow_expiry();
    END IF;
END $$;
