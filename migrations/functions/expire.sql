-- Expiry: applies the policy of a reservation whose lease has ended.

-- Applies the expiry policies of held reservations whose rows are locked. Each balance
-- changes once for all of them; each reservation still gets its own entries.
CREATE OR REPLACE FUNCTION earmark.expire_all(p_ids text[], p_actor text, p_reason text) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    v_share   earmark.reservation_budgets;
    v_granted text[] := '{}';
BEGIN
    IF EXISTS (SELECT 1 FROM earmark.reservations WHERE id = ANY (p_ids) AND granted) THEN
        v_granted := earmark.lock_granted(p_ids);
    END IF;
    PERFORM 1 FROM earmark.windows w
    WHERE (w.budget_id, w.window_start) IN (SELECT s.budget_id, s.window_start FROM earmark.reservation_budgets s WHERE s.reservation_id = ANY (p_ids))
    ORDER BY w.budget_id, w.window_start FOR NO KEY UPDATE;

    WITH shares AS (
        SELECT s.budget_id, s.window_start, s.reserved, CASE r.on_expiry WHEN 'commit' THEN s.reserved ELSE 0 END AS charged, r.id, r.tenant, r.expires_at
        FROM earmark.reservations r JOIN earmark.reservation_budgets s ON s.reservation_id = r.id
        WHERE r.id = ANY (p_ids) AND r.on_expiry <> 'review'
    ), changed AS (
        UPDATE earmark.windows w SET reserved = w.reserved - d.reserved, committed = w.committed + d.charged
        FROM (SELECT budget_id, window_start, sum(reserved) AS reserved, sum(charged) AS charged FROM shares GROUP BY 1, 2) AS d
        WHERE w.budget_id = d.budget_id AND w.window_start = d.window_start
        RETURNING w.budget_id, w.window_start, w.reserved + d.reserved AS reserved_before, w.committed - d.charged AS committed_before
    )
    INSERT INTO earmark.entries (kind, tenant, reservation_id, budget_id, window_start, reserved_delta, committed_delta,
                                 reserved_after, committed_after, actor, reason)
    SELECT 'expire', tenant, id, budget_id, window_start, -reserved, charged,
           reserved_before - sum(reserved) OVER chain, committed_before + sum(charged) OVER chain, p_actor, p_reason
    FROM shares JOIN changed USING (budget_id, window_start)
    WINDOW chain AS (PARTITION BY budget_id, window_start ORDER BY expires_at, id)
    ORDER BY expires_at, id, budget_id;

    IF v_granted <> '{}' THEN
        FOR v_share IN SELECT x.* FROM earmark.reservation_budgets x JOIN earmark.reservations r ON r.id = x.reservation_id
                 WHERE r.id = ANY (p_ids) AND r.granted AND r.on_expiry <> 'review' AND x.budget_id = ANY (v_granted) ORDER BY r.expires_at, r.id LOOP
            PERFORM earmark.settle_grants(v_share, (SELECT CASE on_expiry WHEN 'commit' THEN v_share.reserved ELSE 0 END FROM earmark.reservations WHERE id = v_share.reservation_id),
                v_share.reserved, p_actor);
        END LOOP;
    END IF;

    INSERT INTO earmark.entries (kind, tenant, reservation_id, actor, reason)
    SELECT 'review', tenant, id, p_actor, p_reason FROM earmark.reservations WHERE id = ANY (p_ids) AND on_expiry = 'review' ORDER BY expires_at, id;

    UPDATE earmark.reservation_budgets s SET committed = CASE r.on_expiry WHEN 'commit' THEN s.reserved ELSE 0 END, overdue_at = NULL
    FROM earmark.reservations r WHERE r.id = ANY (p_ids) AND s.reservation_id = r.id;

    UPDATE earmark.reservations SET state = 'review', reason = p_reason WHERE id = ANY (p_ids) AND on_expiry = 'review';
    UPDATE earmark.reservations SET state = CASE on_expiry WHEN 'commit' THEN 'committed' ELSE 'expired' END,
        usage = CASE on_expiry WHEN 'commit' THEN amounts END, estimated = on_expiry = 'commit',
        settled_at = clock_timestamp(), reason = p_reason, orphan = false, refresh_due = p_actor <> 'workflow'
    WHERE id = ANY (p_ids) AND on_expiry <> 'review';

    PERFORM earmark.cross_thresholds(w.budget_id, w.window_start) FROM earmark.windows w -- the policy 'commit' charges
    WHERE (w.budget_id, w.window_start) IN (SELECT s.budget_id, s.window_start FROM earmark.reservation_budgets s WHERE s.reservation_id = ANY (p_ids))
      AND (w.committed >= w.next_committed OR w.reserved + w.committed >= w.next_used);
    PERFORM earmark.emit_reservation(CASE x.state WHEN 'review' THEN 'reservation.review' ELSE 'reservation.expired' END, x) -- mutation: expiry-event
    FROM earmark.reservations x WHERE x.id = ANY (p_ids) ORDER BY x.expires_at, x.id;
END $$;

-- Applies the expiry policy of a held reservation whose row is locked.
CREATE OR REPLACE FUNCTION earmark.apply_expiry(r earmark.reservations, p_actor text, p_reason text) RETURNS earmark.reservations
LANGUAGE plpgsql AS $$
BEGIN
    PERFORM earmark.expire_all(ARRAY [r.id], p_actor, p_reason);
    SELECT * INTO r FROM earmark.reservations WHERE id = r.id;
    RETURN r;
END $$;

-- Expires a held reservation whose lease has ended.
CREATE OR REPLACE FUNCTION earmark.expire(p_tenant text, p_id text, p_actor text, p_reason text) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET lock_timeout = '1s' AS $$
DECLARE
    r earmark.reservations := earmark.lock_reservation(p_tenant, p_id);
BEGIN
    IF r.id IS NULL THEN
        RETURN jsonb_build_object('outcome', 'unknown');
    ELSIF r.state <> 'held' THEN
        RETURN earmark.result('same', r);
    ELSIF clock_timestamp() < r.expires_at THEN
        RETURN earmark.result('not_due', r);
    END IF;
    r := earmark.apply_expiry(r, p_actor, p_reason); -- a statement of its own, so that the answer below sees the change
    RETURN earmark.result('applied', r);
END $$;

-- Expires up to p_max reservations that have been overdue for more than p_grace_ms, and
-- returns their ids. It skips rows that another session has locked. It locks the windows of
-- all of them in order, so it cannot deadlock (R6).
CREATE OR REPLACE FUNCTION earmark.sweep(p_grace_ms bigint, p_max integer, p_actor text, p_reason text) RETURNS text[]
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET lock_timeout = '1s' AS $$
DECLARE
    v_due timestamptz := clock_timestamp() - p_grace_ms * interval '1 millisecond'; -- a variable, because the index does not serve the expression
    v_ids text[];
BEGIN
    PERFORM earmark.require_read_committed();
    SELECT array_agg(id) INTO v_ids FROM (
        SELECT id FROM earmark.reservations WHERE state = 'held' AND expires_at < v_due
        ORDER BY expires_at, id LIMIT p_max FOR NO KEY UPDATE SKIP LOCKED
    ) AS overdue;
    IF v_ids IS NULL THEN
        RETURN '{}';
    END IF;
    PERFORM earmark.expire_all(v_ids, p_actor, p_reason);
    RETURN v_ids;
END $$;

-- How many overdue reservations an admission expires in each budget that it does not fit
-- into. The sweeper expires the rest.
CREATE OR REPLACE FUNCTION earmark.max_blocking_holds() RETURNS integer LANGUAGE sql IMMUTABLE AS $$ SELECT 100 $$;

-- Expires overdue 'release' reservations that block an admission, which holds the locks of
-- p_affected, and returns how many. It waits for no lock: it skips rows that another
-- session has locked.
CREATE OR REPLACE FUNCTION earmark.expire_blocking_holds(p_affected earmark.affected_budget[], p_actor text) RETURNS integer LANGUAGE plpgsql AS $$
DECLARE
    t     earmark.affected_budget;
    v_now timestamptz := clock_timestamp();
    v_ids text[] := '{}';
    v_most integer; -- ids in v_ids after this budget
    v_start timestamptz;
BEGIN
    FOREACH t IN ARRAY p_affected LOOP
        v_most := cardinality(v_ids) + earmark.max_blocking_holds();
        FOR v_start IN SELECT * FROM earmark.counted_windows(t) LOOP
            v_ids := v_ids || ARRAY(
                SELECT r.id FROM earmark.reservation_budgets s JOIN earmark.reservations r ON r.id = s.reservation_id
                WHERE s.budget_id = t.budget_id AND s.window_start = v_start
                  AND s.frees_on_expiry AND s.overdue_at < v_now AND s.reserved > 0
                  AND r.state = 'held' AND r.on_expiry = 'release' AND r.expires_at < v_now AND r.id <> ALL (v_ids)
                ORDER BY s.overdue_at, r.id LIMIT v_most - cardinality(v_ids) FOR UPDATE OF r SKIP LOCKED);
        END LOOP;
    END LOOP;
    WITH locked AS (
        SELECT w.budget_id, w.window_start FROM earmark.windows w
        WHERE (w.budget_id, w.window_start) IN (SELECT s.budget_id, s.window_start FROM earmark.reservation_budgets s WHERE s.reservation_id = ANY (v_ids))
        FOR NO KEY UPDATE SKIP LOCKED
    ), granted AS (
        SELECT b.id FROM earmark.budgets b
        WHERE b.id IN (SELECT s.budget_id FROM earmark.reservation_budgets s WHERE s.reservation_id = ANY (v_ids)) AND b.granted_until IS NOT NULL
        FOR NO KEY UPDATE SKIP LOCKED
    )
    SELECT coalesce(array_agg(x.id), '{}') INTO v_ids FROM unnest(v_ids) AS x (id)
    WHERE NOT EXISTS (SELECT 1 FROM earmark.reservation_budgets s
                      WHERE s.reservation_id = x.id AND (s.budget_id, s.window_start) NOT IN (SELECT * FROM locked))
      AND NOT EXISTS (SELECT 1 FROM earmark.reservation_budgets s JOIN earmark.budgets b ON b.id = s.budget_id
                      WHERE s.reservation_id = x.id AND b.granted_until IS NOT NULL AND b.id NOT IN (SELECT * FROM granted));
    IF v_ids <> '{}' THEN
        PERFORM earmark.expire_all(v_ids, p_actor, 'overdue, and in the way of an admission');
    END IF;
    RETURN cardinality(v_ids);
END $$;

-- Follows an extension or a change of the policy, which are rare. Whatever ends a hold
-- clears overdue_at itself.
CREATE OR REPLACE FUNCTION earmark.follow_expiry() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    UPDATE earmark.reservation_budgets
    SET overdue_at = CASE NEW.state WHEN 'held' THEN NEW.expires_at END, frees_on_expiry = NEW.on_expiry = 'release'
    WHERE reservation_id = NEW.id;
    RETURN NULL;
END $$;
