-- Grants: amounts on top of a budget's limit that are used up once. Whoever reads or changes grants to admit, settle,
-- make or void has locked their budget (R6); they need no locks of their own.

-- Whether a grant has not ended at p_at. In SQL, so that a query takes it in and finds those of a budget by grants_in_force_idx.
CREATE OR REPLACE FUNCTION earmark.lasts(g earmark.grants, p_at timestamptz) RETURNS boolean LANGUAGE sql STABLE AS $$
    SELECT p_at < coalesce(g.expires_at, 'infinity') AND p_at < coalesce(g.voided_at, 'infinity')
$$;

-- The grants in force at p_at that have something left, in the order in which they are used: by priority, then the
-- earliest expiry, then the oldest. In SQL, so that a query takes it in.
CREATE OR REPLACE FUNCTION earmark.grants_in_force(p_budget_id text, p_at timestamptz) RETURNS SETOF earmark.grants LANGUAGE sql STABLE AS $$
    SELECT * FROM earmark.grants g
    WHERE budget_id = p_budget_id AND effective_at <= p_at AND earmark.lasts(g, p_at) -- mutation: grant-in-force
      AND amount - voided - reserved - committed > 0
    ORDER BY priority, expires_at, created_at, id -- mutation: burn-order
$$;

DROP FUNCTION IF EXISTS earmark.grants_left(earmark.budgets, timestamptz); -- with the whole row, which a query makes for each budget
-- What the grants of a budget that are in force at p_at have left, at most the largest int64; those too that are due when the window of p_at opens.
CREATE OR REPLACE FUNCTION earmark.grants_left(p_budget_id text, p_granted_until timestamptz, p_rolled_until timestamptz, p_at timestamptz) RETURNS bigint
LANGUAGE plpgsql STABLE AS $$
BEGIN
    RETURN least(9223372036854775807,
        CASE WHEN p_granted_until > p_at THEN (SELECT coalesce(sum(amount - voided - reserved - committed), 0) FROM earmark.grants_in_force(p_budget_id, p_at)) ELSE 0 END
        + CASE WHEN p_rolled_until IS NOT NULL THEN earmark.rollover_due_sum(p_budget_id, p_at) ELSE 0 END);
END $$;

-- What grants bear of the window at p_window_start.
CREATE OR REPLACE FUNCTION earmark.granted_in(b earmark.budgets, p_window_start timestamptz, OUT reserved bigint, OUT committed bigint)
LANGUAGE plpgsql STABLE AS $$
BEGIN
    IF b.granted_until IS NOT NULL THEN
        SELECT w.granted_reserved, w.granted_committed INTO reserved, committed FROM earmark.windows w
        WHERE w.budget_id = b.id AND w.window_start = p_window_start;
    END IF;
    reserved := coalesce(reserved, 0);
    committed := coalesce(committed, 0);
END $$;

-- The same, and what those in force at p_at have left.
CREATE OR REPLACE FUNCTION earmark.granted_at(b earmark.budgets, p_window_start timestamptz, p_at timestamptz,
    OUT reserved bigint, OUT committed bigint, OUT remaining bigint)
LANGUAGE plpgsql STABLE AS $$
BEGIN
    SELECT g.reserved, g.committed INTO reserved, committed FROM earmark.granted_in(b, p_window_start) g;
    remaining := earmark.grants_left(b.id, b.granted_until, b.rolled_until, p_at);
END $$;

-- A limit or a ceiling with what grants add to it: what they bear of the window, and what they have left. Null for no ceiling.
-- In SQL, so that an expression takes it in.
CREATE OR REPLACE FUNCTION earmark.add_granted(p_amount bigint, p_reserved bigint, p_committed bigint, p_remaining bigint) RETURNS bigint LANGUAGE sql IMMUTABLE AS $$
    SELECT CASE WHEN p_amount IS NOT NULL THEN least(9223372036854775807, p_amount::numeric + p_reserved + p_committed + p_remaining)::bigint END -- least() ignores null
$$;

-- t with the grants of its budget b at p_at, and what they bear of its window. It keeps their parts, because the split of an
-- amount needs them. In few statements, because a session prepares each one anew in every transaction.
CREATE OR REPLACE FUNCTION earmark.with_grants(t earmark.affected_budget, b earmark.budgets, p_at timestamptz, p_reserved bigint, p_committed bigint)
    RETURNS earmark.affected_budget LANGUAGE plpgsql STABLE AS $$
DECLARE
    v_ids       text[];
    v_remaining bigint[];
    v_left      bigint := 0;
BEGIN
    IF b.granted_until > p_at THEN
        SELECT array_agg(g.id), array_agg(g.remaining), least(9223372036854775807, coalesce(sum(g.remaining), 0)) INTO v_ids, v_remaining, v_left
        FROM (SELECT id, amount - voided - reserved - committed AS remaining FROM earmark.grants_in_force(b.id, p_at)) AS g;
    END IF;
    IF b.rolled_until < t.window_start THEN -- a decision may come before the window opens
        v_left := least(9223372036854775807, v_left + earmark.rollover_due_sum(b.id, p_at));
    END IF;
    RETURN ROW (t.budget_id, t.scope, t.unit, t.period,
        earmark.add_granted(t.limit_amount, p_reserved, p_committed, v_left), earmark.add_granted(t.ceiling, p_reserved, p_committed, v_left),
        t.window_start, t.window_end, t.reserved, t.committed, t.slice, t.other_reserved, t.other_committed, p_reserved, p_committed, v_left,
        CASE b.allowance WHEN 'first' THEN greatest(0, t.limit_amount - (t.reserved - p_reserved) - (t.committed - p_committed)) ELSE 0 END, -- mutation: allowance-first
        v_ids, v_remaining)::earmark.affected_budget;
END $$;

-- Sets p_amount of a new reservation, which the window's own limit does not take before, aside on grants, in the order of
-- use, and returns how much of it they took. The rest is the window's own, also in a soft budget what neither has room for.
CREATE OR REPLACE FUNCTION earmark.hold_on_grants(t earmark.affected_budget, p_reservation_id text, p_amount bigint) RETURNS bigint
LANGUAGE plpgsql AS $$
DECLARE
    v_rest bigint := p_amount;
    v_take bigint;
BEGIN
    FOR i IN 1 .. cardinality(t.grant_ids) LOOP
        v_take := least(v_rest, t.grant_remaining[i]);
        WITH changed AS (
            UPDATE earmark.grants SET reserved = reserved + v_take WHERE id = t.grant_ids[i]
        )
        INSERT INTO earmark.reservation_grants (reservation_id, grant_id, budget_id, window_start, held, reserved)
        VALUES (p_reservation_id, t.grant_ids[i], t.budget_id, t.window_start, v_take, v_take);
        v_rest := v_rest - v_take;
        EXIT WHEN v_rest = 0;
    END LOOP;
    RETURN p_amount - v_rest;
END $$;

-- t as it would be without the holds of some reservations, of which p_at is after the lease.
CREATE OR REPLACE FUNCTION earmark.without_holds(t earmark.affected_budget, p_reservation_ids text[], p_at timestamptz) RETURNS earmark.affected_budget
LANGUAGE plpgsql STABLE AS $$
DECLARE
    h record; -- what they hold on grants, and on those that have ended
BEGIN
    SELECT coalesce(sum(x.reserved), 0) AS held, coalesce(sum(x.reserved) FILTER (WHERE least(g.expires_at, g.voided_at, 'infinity') <= p_at), 0) AS lost INTO h
    FROM earmark.reservation_grants x JOIN earmark.grants g ON g.id = x.grant_id
    WHERE x.reservation_id = ANY (p_reservation_ids) AND x.budget_id = t.budget_id;
    t.granted_reserved := t.granted_reserved - h.held;
    t.grants_left := t.grants_left + h.held - h.lost;
    t.limit_amount := t.limit_amount - h.lost;
    t.ceiling := t.ceiling - h.lost;
    RETURN t;
END $$;

-- What the grants in force at p_at, now or later, will have left without another call: with what is held against them if
-- p_freed, and in any case with what holds of this window that free their amount and were overdue before p_past hold.
CREATE OR REPLACE FUNCTION earmark.grants_left_then(t earmark.affected_budget, p_at timestamptz, p_freed boolean, p_past timestamptz) RETURNS numeric
LANGUAGE plpgsql STABLE AS $$
BEGIN
    RETURN (SELECT coalesce(sum(CASE WHEN p_freed AND g.rolled_from IS NOT NULL THEN earmark.rolled_then(g) ELSE g.amount END - g.voided - g.committed - CASE WHEN p_freed THEN 0 ELSE g.reserved - (
                SELECT coalesce(sum(x.reserved), 0) FROM earmark.reservation_grants x
                JOIN earmark.reservation_budgets s ON s.reservation_id = x.reservation_id AND s.budget_id = x.budget_id
                WHERE p_past > '-infinity' AND x.budget_id = g.budget_id AND x.window_start = t.window_start AND x.reserved > 0 AND x.grant_id = g.id
                  AND s.frees_on_expiry AND s.overdue_at < p_past) END), 0)
            FROM earmark.grants g
            WHERE g.budget_id = t.budget_id AND g.effective_at <= p_at AND earmark.lasts(g, p_at));
END $$;

-- Locks the budgets of reservations that have grants, which comes before the locks of their windows (R6), and returns their ids.
CREATE OR REPLACE FUNCTION earmark.lock_granted(p_reservation_ids text[]) RETURNS text[] LANGUAGE plpgsql AS $$
BEGIN
    RETURN ARRAY (
        SELECT b.id FROM earmark.budgets b
        WHERE b.id IN (SELECT budget_id FROM earmark.reservation_budgets WHERE reservation_id = ANY (p_reservation_ids)) AND b.granted_until IS NOT NULL
        ORDER BY b.id FOR NO KEY UPDATE OF b); -- mutation: granted-locked
END $$;

-- Adds p_by to what a grant bears of a share.
CREATE OR REPLACE FUNCTION earmark.charge_grant(s earmark.reservation_budgets, p_grant_id text, p_by bigint) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    UPDATE earmark.grants SET committed = committed + p_by WHERE id = p_grant_id;
    UPDATE earmark.reservation_grants SET committed = committed + p_by
    WHERE reservation_id = s.reservation_id AND grant_id = p_grant_id AND window_start = s.window_start;
    IF NOT FOUND THEN
        INSERT INTO earmark.reservation_grants (reservation_id, grant_id, budget_id, window_start, committed)
        VALUES (s.reservation_id, p_grant_id, s.budget_id, s.window_start, p_by);
    END IF;
END $$;

-- Follows a change of a share's charge to p_committed, which earmark.post has made; s is the share before it. What was held
-- goes back to the grants. A further charge goes first to what the share was held against, then to what else has room at
-- p_at, both in the order of use, and the rest to the window itself. A grant that has ended still bears what was held
-- against it, as far as nothing else has used it. What a charge gives back goes in the reverse order. p_at is by default
-- now, or for a window that has ended, its end. p_freed is what the share held until then. By the change of what the window
-- itself bears, what it has rolled over changes too.
DROP FUNCTION IF EXISTS earmark.settle_grants(earmark.reservation_budgets, bigint, timestamptz); -- without p_freed
CREATE OR REPLACE FUNCTION earmark.settle_grants(s earmark.reservation_budgets, p_committed bigint, p_freed bigint, p_actor text, p_at timestamptz DEFAULT NULL) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
    b       earmark.budgets;
    w       earmark.windows;
    g       record;
    h       record; -- the sums of the share's parts on grants
    v_rest  numeric := p_committed::numeric - s.committed;
    v_own   numeric := 0; -- what the window itself takes of it in the order of use
    v_take  bigint;
    v_taken bigint := 0; -- by grants
    v_left  numeric; -- what the window itself has more left
BEGIN
    SELECT coalesce(sum(held), 0) AS held, coalesce(sum(reserved), 0) AS reserved, coalesce(sum(committed), 0) AS committed INTO h
    FROM earmark.reservation_grants WHERE reservation_id = s.reservation_id AND budget_id = s.budget_id;
    IF h.reserved > 0 THEN
        UPDATE earmark.grants x SET reserved = x.reserved - y.reserved FROM earmark.reservation_grants y
        WHERE y.reservation_id = s.reservation_id AND y.budget_id = s.budget_id AND y.reserved > 0 AND x.id = y.grant_id; -- mutation: grants-given-back
        UPDATE earmark.reservation_grants SET reserved = 0 WHERE reservation_id = s.reservation_id AND budget_id = s.budget_id AND reserved > 0;
    END IF;
    IF v_rest <> 0 THEN
        SELECT * INTO w FROM earmark.windows WHERE budget_id = s.budget_id AND window_start = s.window_start;
        p_at := coalesce(p_at, least(clock_timestamp(), w.window_end - interval '1 microsecond'));
        SELECT * INTO b FROM earmark.budgets WHERE id = s.budget_id;
        b := earmark.in_force(b, p_at);
    END IF;
    IF v_rest > 0 THEN
        IF b.allowance = 'first' THEN
            v_own := least(v_rest, greatest(0, (s.reserved - h.held) - (s.committed - h.committed)));
            v_rest := v_rest - v_own;
        END IF;
        FOR g IN SELECT x.id, least(y.held - y.committed, x.amount - x.voided - x.reserved - x.committed) AS room
                 FROM earmark.reservation_grants y JOIN earmark.grants x ON x.id = y.grant_id
                 WHERE y.reservation_id = s.reservation_id AND y.budget_id = s.budget_id
                 ORDER BY x.priority, x.expires_at, x.created_at, x.id LOOP -- mutation: held-against
            v_take := least(v_rest, greatest(0, g.room));
            CONTINUE WHEN v_take = 0;
            PERFORM earmark.charge_grant(s, g.id, v_take);
            v_taken := v_taken + v_take;
            v_rest := v_rest - v_take;
        END LOOP;
        IF b.allowance = 'last' THEN
            v_own := least(v_rest, greatest(0, (s.reserved - h.held) - (s.committed - h.committed)));
            v_rest := v_rest - v_own;
        END IF;
        IF v_rest > 0 THEN -- beyond what was held
            IF b.allowance = 'first' THEN
                v_rest := v_rest - least(v_rest, greatest(0, b.limit_amount::numeric - v_own - (w.reserved - (w.granted_reserved - h.reserved))
                    - (w.committed - (p_committed - s.committed) - w.granted_committed)));
            END IF;
            FOR g IN SELECT * FROM earmark.grants_in_force(b.id, p_at) LOOP
                v_take := least(v_rest, g.amount - g.voided - g.reserved - g.committed);
                EXIT WHEN v_take = 0;
                PERFORM earmark.charge_grant(s, g.id, v_take);
                v_taken := v_taken + v_take;
                v_rest := v_rest - v_take;
            END LOOP;
        END IF;
    ELSIF v_rest < 0 AND h.committed > 0 THEN
        IF b.allowance = 'last' THEN
            v_rest := v_rest + least(-v_rest, s.committed - h.committed);
        END IF;
        FOR g IN SELECT x.id, y.committed FROM earmark.reservation_grants y JOIN earmark.grants x ON x.id = y.grant_id
                 WHERE y.reservation_id = s.reservation_id AND y.budget_id = s.budget_id AND y.committed > 0
                 ORDER BY x.priority DESC, x.expires_at DESC, x.created_at DESC, x.id DESC LOOP -- mutation: given-back-in-reverse
            v_take := least(-v_rest, g.committed);
            EXIT WHEN v_take = 0;
            PERFORM earmark.charge_grant(s, g.id, -v_take);
            v_taken := v_taken - v_take;
            v_rest := v_rest + v_take;
        END LOOP;
    END IF;
    IF h.reserved > 0 OR v_taken <> 0 THEN
        UPDATE earmark.windows SET granted_reserved = granted_reserved - h.reserved, granted_committed = granted_committed + v_taken
        WHERE budget_id = s.budget_id AND window_start = s.window_start;
    END IF;
    IF h.reserved > 0 OR v_taken < 0 THEN
        PERFORM earmark.roll_given_back(s, p_actor); -- mutation: rolled-over-given-back
    END IF;
    v_left := p_freed::numeric - h.reserved - (p_committed::numeric - s.committed - v_taken);
    SELECT * INTO b FROM earmark.budgets WHERE id = s.budget_id AND rolled_until > s.window_start;
    IF FOUND AND v_left <> 0 THEN
        PERFORM earmark.roll_settled(b, s.window_start, v_left, p_actor);
    END IF;
END $$;

CREATE OR REPLACE FUNCTION earmark.grant_json(g earmark.grants) RETURNS jsonb LANGUAGE plpgsql STABLE AS $$
BEGIN
    RETURN jsonb_build_object('id', g.id, 'budget_id', g.budget_id, 'amount', g.amount, 'reserved', g.reserved, 'committed', g.committed,
        'remaining', CASE WHEN least(g.expires_at, g.voided_at, 'infinity') > clock_timestamp() THEN g.amount - g.voided - g.reserved - g.committed ELSE 0 END,
        'priority', g.priority, 'effective_at', g.effective_at, 'expires_at', g.expires_at, 'voided_at', g.voided_at, 'voided', g.voided,
        'source', CASE WHEN g.rolled_from IS NULL THEN 'manual' ELSE 'rollover' END, 'rolled_from', g.rolled_from,
        'reason', g.reason, 'created_at', g.created_at);
END $$;

-- How the journal names a grant.
CREATE OR REPLACE FUNCTION earmark.grant_words(g earmark.grants) RETURNS text LANGUAGE plpgsql STABLE AS $$
DECLARE
    c_form CONSTANT text := 'YYYY-MM-DD"T"HH24:MI:SS"Z"';
BEGIN
    RETURN concat_ws(' ', 'grant', g.id, 'of', g.amount, 'from', to_char(g.effective_at AT TIME ZONE 'UTC', c_form),
        'to ' || to_char(g.expires_at AT TIME ZONE 'UTC', c_form));
END $$;

-- Notes when the last grant of a budget, whose row is locked, ends.
CREATE OR REPLACE FUNCTION earmark.follow_grants(p_budget_id text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    UPDATE earmark.budgets SET granted_until = (
        SELECT max(least(expires_at, voided_at, 'infinity')) FROM earmark.grants WHERE budget_id = p_budget_id)
    WHERE id = p_budget_id;
END $$;

-- Grants p_amount to a budget from p_effective_at (null: now) to p_expires_at, or until it is used up. One moment, read
-- under the lock, is now for all of it. Outcomes: applied, same, mismatch, unknown (there is no such budget), conflict
-- (the budget is archived), invalid with the field as its subject.
CREATE OR REPLACE FUNCTION earmark.create_grant(p_id text, p_tenant text, p_budget_id text, p_hash text, p_amount bigint, p_priority integer,
    p_effective_at timestamptz, p_expires_at timestamptz, p_actor text, p_reason text) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET lock_timeout = '1s' AS $$
DECLARE
    c_most      CONSTANT integer := 100; -- grants of a budget with something left: an admission reads them all
    b           earmark.budgets;
    g           earmark.grants;
    v_now       timestamptz;
    v_effective timestamptz;
BEGIN
    PERFORM earmark.require_read_committed();
    SELECT * INTO b FROM earmark.budgets WHERE tenant = p_tenant AND id = p_budget_id FOR NO KEY UPDATE;
    IF NOT FOUND THEN
        RETURN jsonb_build_object('outcome', 'unknown');
    END IF;
    SELECT * INTO g FROM earmark.grants WHERE id = p_id;
    IF FOUND THEN -- mutation: grant-once
        RETURN CASE WHEN g.request_hash = p_hash THEN jsonb_build_object('outcome', 'same', 'grant', earmark.grant_json(g))
                    ELSE jsonb_build_object('outcome', 'mismatch') END;
    ELSIF b.archived_at IS NOT NULL THEN
        RETURN jsonb_build_object('outcome', 'conflict', 'archived_at', b.archived_at);
    ELSIF earmark.is_template(b.scope) THEN
        RETURN jsonb_build_object('outcome', 'invalid', 'subject', 'template');
    ELSIF b.period = 'rolling' THEN
        RETURN jsonb_build_object('outcome', 'invalid', 'subject', 'window');
    END IF;
    v_now := clock_timestamp();
    v_effective := coalesce(p_effective_at, v_now);
    IF p_expires_at <= greatest(v_now, v_effective) THEN
        RETURN jsonb_build_object('outcome', 'invalid', 'subject', 'expires_at');
    ELSIF c_most <= (SELECT count(*) FROM earmark.grants x WHERE budget_id = b.id AND earmark.lasts(x, v_now)
                       AND amount - voided - reserved - committed > 0) THEN
        RETURN jsonb_build_object('outcome', 'invalid', 'subject', 'grants');
    END IF;

    INSERT INTO earmark.grants (id, tenant, budget_id, request_hash, amount, priority, effective_at, expires_at, reason, created_at)
    VALUES (p_id, p_tenant, b.id, p_hash, p_amount, p_priority, v_effective, p_expires_at, p_reason, v_now) RETURNING * INTO g;
    PERFORM earmark.follow_grants(b.id);
    UPDATE earmark.denials SET exhausted_in = NULL WHERE budget_id = b.id; -- as after a raise of the limit
    PERFORM earmark.note('budget', b.tenant, NULL, b.id, p_actor, earmark.grant_words(g) || ': ' || p_reason);
    PERFORM earmark.log_change(b.tenant, p_actor, 'grant.create', b.id, p_reason, NULL, earmark.grant_json(g));
    RETURN jsonb_build_object('outcome', 'applied', 'grant', earmark.grant_json(g));
END $$;

-- Takes away what is left of a grant. What is held against it stays so. One that has ended stays as it is. Outcomes:
-- applied, same, unknown.
CREATE OR REPLACE FUNCTION earmark.void_grant(p_tenant text, p_budget_id text, p_id text, p_actor text, p_reason text) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET lock_timeout = '1s' AS $$
DECLARE
    g        earmark.grants;
    v_before jsonb;
    v_now    timestamptz;
BEGIN
    PERFORM earmark.require_read_committed();
    PERFORM 1 FROM earmark.budgets WHERE tenant = p_tenant AND id = p_budget_id FOR NO KEY UPDATE; -- mutation: void-locks
    SELECT * INTO g FROM earmark.grants WHERE tenant = p_tenant AND budget_id = p_budget_id AND id = p_id;
    v_now := clock_timestamp();
    IF NOT FOUND THEN
        RETURN jsonb_build_object('outcome', 'unknown');
    ELSIF least(g.expires_at, g.voided_at, 'infinity') <= v_now THEN
        RETURN jsonb_build_object('outcome', 'same', 'grant', earmark.grant_json(g));
    END IF;
    v_before := earmark.grant_json(g);
    UPDATE earmark.grants SET voided_at = v_now, voided = amount - reserved - committed WHERE id = g.id RETURNING * INTO g;
    PERFORM earmark.follow_grants(p_budget_id);
    PERFORM earmark.note('budget', p_tenant, NULL, p_budget_id, p_actor, format('voided %s, %s unused: %s', earmark.grant_words(g), g.voided, p_reason));
    PERFORM earmark.log_change(p_tenant, p_actor, 'grant.void', p_budget_id, p_reason, v_before, earmark.grant_json(g));
    RETURN jsonb_build_object('outcome', 'applied', 'grant', earmark.grant_json(g));
END $$;

DROP FUNCTION IF EXISTS earmark.note_expired_grants(integer, text); -- which wrote no event
-- Writes what is due about grants, each once: an entry that says what of one was unused when it expired; and 168 hours before that the event
-- grant.expiring, if it is not used up by then, or when it is made if its end is nearer. Looks at up to p_max grants for either, and returns
-- at how many. It waits for no grant that another session has locked.
CREATE OR REPLACE FUNCTION earmark.note_grants(p_max integer, p_actor text) RETURNS integer
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET lock_timeout = '1s' AS $$
DECLARE
    v_now  timestamptz := clock_timestamp(); -- a variable, because the index does not serve the function
    v_soon timestamptz := v_now + interval '168 hours';
    g      earmark.grants;
    b      earmark.budgets;
    v_seen integer := 0;
BEGIN
    PERFORM earmark.require_read_committed();
    FOR g IN SELECT * FROM earmark.grants WHERE expires_at <= v_now AND voided_at IS NULL AND NOT expiry_noted -- mutation: expiry-noted-once
             ORDER BY expires_at, id LIMIT p_max FOR NO KEY UPDATE SKIP LOCKED LOOP
        UPDATE earmark.grants SET expiry_noted = true, expiring_noted = true WHERE id = g.id;
        IF g.amount > g.reserved + g.committed THEN
            PERFORM earmark.note('budget', g.tenant, NULL, g.budget_id, p_actor, format('%s expired, %s unused', earmark.grant_words(g), g.amount - g.reserved - g.committed));
        END IF;
        v_seen := v_seen + 1;
    END LOOP;
    FOR g IN SELECT * FROM earmark.grants WHERE expires_at > v_now AND expires_at <= v_soon AND voided_at IS NULL AND NOT expiring_noted -- mutation: expiring-once
             ORDER BY expires_at, id LIMIT p_max FOR NO KEY UPDATE SKIP LOCKED LOOP
        UPDATE earmark.grants SET expiring_noted = true WHERE id = g.id;
        SELECT * INTO b FROM earmark.budgets WHERE id = g.budget_id;
        IF g.amount > g.committed AND b.archived_at IS NULL THEN
            PERFORM earmark.emit('grant.expiring', g.tenant, ARRAY [b.scope], b.id, NULL, NULL, jsonb_build_object('unit', b.unit, 'grant_id', g.id,
                'amount', g.amount, 'reserved', g.reserved, 'remaining', g.amount - g.reserved - g.committed, 'expires_at', g.expires_at));
        END IF;
        v_seen := v_seen + 1;
    END LOOP;
    RETURN v_seen;
END $$;
