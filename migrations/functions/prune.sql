-- Removal of reservations that were settled long ago.

-- The minimum time that a settled reservation is kept: so long its idempotency key answers.
CREATE OR REPLACE FUNCTION earmark.min_retention() RETURNS interval LANGUAGE sql IMMUTABLE AS $$ SELECT interval '720 hours' $$;

-- Up to p_max reservations that were created before p_before and after the one at
-- (p_after_at, p_after_id), oldest first, and whether each can be pruned: it was settled
-- before p_before, its workflow was notified, usage_rollups has its entries, and each of its
-- windows has ended or never ends.
CREATE OR REPLACE FUNCTION earmark.prunable(p_tenant text, p_before timestamptz, p_after_at timestamptz, p_after_id text, p_max integer)
    RETURNS TABLE (id text, created_at timestamptz, prunable boolean) LANGUAGE plpgsql STABLE AS $$
DECLARE
    v_now timestamptz := clock_timestamp();
BEGIN
    RETURN QUERY
        SELECT r.id, r.created_at, r.state NOT IN ('held', 'review') AND r.settled_at < p_before AND NOT r.refresh_due
            AND NOT EXISTS (SELECT 1 FROM earmark.reservation_budgets s JOIN earmark.windows w ON w.budget_id = s.budget_id AND w.window_start = s.window_start
                            WHERE s.reservation_id = r.id AND w.window_end > v_now)
            AND NOT EXISTS (SELECT 1 FROM earmark.entries e WHERE e.reservation_id = r.id AND e.id > (SELECT entry_id FROM earmark.usage_watermark)) -- mutation: prune-after-roll-up
        FROM earmark.reservations r
        WHERE r.tenant = p_tenant AND r.created_at < p_before AND (r.created_at, r.id) > (p_after_at, p_after_id)
        ORDER BY r.created_at, r.id LIMIT p_max;
END $$;

-- Looks at up to p_max reservations, in the order of earmark.prunable, and removes those
-- that can be pruned: the row, its shares, its corrections and its entries. Balances stay unchanged: in each
-- window a checkpoint replaces the removed entries (R3), and one row what a grant bears of them. Returns how many it looked at, how
-- many it removed, and the last one, from which to continue; 'busy' if another prune runs.
-- With p_dry it removes nothing.
CREATE OR REPLACE FUNCTION earmark.prune(p_tenant text, p_keep_ms bigint, p_after_at timestamptz, p_after_id text, p_max integer, p_dry boolean, p_actor text) RETURNS jsonb
LANGUAGE plpgsql SET lock_timeout = '1s' AS $$
DECLARE
    v_before  timestamptz := clock_timestamp() - p_keep_ms * interval '1 millisecond';
    v_ids     text[];
    v_former  bigint[]; -- existing checkpoints
    v_entries bigint;
    v_answer  jsonb;
BEGIN
    PERFORM earmark.require_read_committed();
    IF p_keep_ms * interval '1 millisecond' < earmark.min_retention() THEN
        RAISE EXCEPTION 'settled reservations are kept for % at least', earmark.min_retention() USING ERRCODE = 'invalid_parameter_value';
    ELSIF NOT pg_try_advisory_xact_lock(hashtextextended('earmark.prune', 0)) THEN
        RETURN jsonb_build_object('busy', true);
    END IF;

    SELECT jsonb_build_object('looked_at', count(*), 'last_at', max(p.created_at), 'last_id', (array_agg(p.id ORDER BY p.created_at DESC, p.id DESC))[1]),
           array_agg(p.id) FILTER (WHERE p.prunable)
    INTO v_answer, v_ids
    FROM earmark.prunable(p_tenant, v_before, p_after_at, p_after_id, p_max) p;
    IF p_dry THEN
        RETURN v_answer || jsonb_build_object('reservations', coalesce(cardinality(v_ids), 0),
            'entries', (SELECT count(*) FROM earmark.entries WHERE reservation_id = ANY (v_ids)));
    END IF;

    -- For the triggers on earmark.entries. In the SET clause of the function only a
    -- superuser could set it.
    PERFORM set_config('earmark.pruning', 'on', true);
    -- Leaves out reservations that a late commit has changed meanwhile or is changing now.
    SELECT array_agg(r.id) INTO v_ids FROM (
        SELECT id FROM earmark.reservations WHERE id = ANY (v_ids) AND settled_at < v_before AND NOT refresh_due FOR UPDATE SKIP LOCKED
    ) AS r;
    SELECT array_agg(e.id) INTO v_former
    FROM (SELECT DISTINCT budget_id, window_start FROM earmark.reservation_budgets WHERE reservation_id = ANY (v_ids)) AS s
         JOIN earmark.entries e ON e.budget_id = s.budget_id AND e.window_start = s.window_start AND e.kind = 'checkpoint';

    WITH gone AS (
        DELETE FROM earmark.entries WHERE reservation_id = ANY (v_ids) OR id = ANY (v_former) RETURNING *
    ), checkpoints AS (
        INSERT INTO earmark.entries (id, kind, tenant, budget_id, window_start, reserved_delta, committed_delta, reserved_after, committed_after,
                                     pruned_entries, pruned_reservations, actor, reason)
        OVERRIDING SYSTEM VALUE
        SELECT c.*, p_actor, format('stands for %s entries of %s reservations', c.entries, c.reservations)
        FROM (SELECT max(id), 'checkpoint', tenant, budget_id, window_start, sum(reserved_delta), sum(committed_delta),
                     (array_agg(reserved_after ORDER BY id DESC))[1], (array_agg(committed_after ORDER BY id DESC))[1],
                     sum(coalesce(pruned_entries, 1)) AS entries, count(DISTINCT reservation_id) + coalesce(sum(pruned_reservations), 0) AS reservations
              FROM gone WHERE window_start IS NOT NULL GROUP BY tenant, budget_id, window_start) AS c
    )
    SELECT count(*) FILTER (WHERE kind <> 'checkpoint') INTO v_entries FROM gone;
    WITH gone AS (
        DELETE FROM earmark.reservation_grants WHERE reservation_id = ANY (v_ids) RETURNING *
    )
    INSERT INTO earmark.reservation_grants AS x (reservation_id, grant_id, budget_id, window_start, committed)
    SELECT '', grant_id, budget_id, window_start, sum(committed) FROM gone GROUP BY 2, 3, 4 HAVING sum(committed) > 0 -- mutation: pruned-grants
    ON CONFLICT (reservation_id, grant_id, window_start) DO UPDATE SET committed = x.committed + excluded.committed;
    DELETE FROM earmark.reservation_budgets WHERE reservation_id = ANY (v_ids);
    DELETE FROM earmark.corrections WHERE reservation_id = ANY (v_ids);
    DELETE FROM earmark.reservations WHERE id = ANY (v_ids);
    PERFORM set_config('earmark.pruning', 'off', true);
    RETURN v_answer || jsonb_build_object('reservations', coalesce(cardinality(v_ids), 0), 'entries', v_entries);
END $$;
