-- The locks of every transition, in one order (R6): children of templates by key, the reservation, budgets by id, windows
-- by (budget, start).
--
-- The functions that callers call set plan_cache_mode and enable_seqscan. Every lookup in
-- them is by key. Postgres then plans once a session instead of once a call, which matters
-- because planning with an array parameter takes as long as running the statement; and a
-- plan made while a table was small does not scan the table after it has grown.
--
-- The ones that change something have the rights of the schema's owner (SECURITY DEFINER), see
-- ../access.sql. All of them set the same search_path: a caller's could name other functions and
-- types before those of Postgres, and a session plans a function anew after each change of its path.

-- The functions before these work with values of the type as it was, up to the moment that these take their place.
DO $$
BEGIN
    IF NOT EXISTS (SELECT FROM pg_attribute WHERE attrelid = 'earmark.affected_budget'::regclass AND attname = 'slice' AND NOT attisdropped) THEN
        ALTER TYPE earmark.affected_budget
            ADD ATTRIBUTE slice interval, -- of a rolling window; null: of another
            -- What the other slices of a rolling window hold, 0 for all other windows. The ceiling is what these leave.
            ADD ATTRIBUTE other_reserved bigint,
            ADD ATTRIBUTE other_committed bigint;
    END IF;
    IF NOT EXISTS (SELECT FROM pg_attribute WHERE attrelid = 'earmark.affected_budget'::regclass AND attname = 'grants_left' AND NOT attisdropped) THEN
        ALTER TYPE earmark.affected_budget -- null: the budget has no grants. The limit and the ceiling contain the sum of the three.
            ADD ATTRIBUTE granted_reserved bigint,
            ADD ATTRIBUTE granted_committed bigint,
            ADD ATTRIBUTE grants_left bigint,
            ADD ATTRIBUTE own_room bigint; -- what the window's own limit takes of an amount before the grants; 0 if it comes after them
    END IF;
    IF NOT EXISTS (SELECT FROM pg_attribute WHERE attrelid = 'earmark.affected_budget'::regclass AND attname = 'grant_ids' AND NOT attisdropped) THEN
        ALTER TYPE earmark.affected_budget -- the grants in force that have something left, in the order of use, and how much
            DROP ATTRIBUTE IF EXISTS grants, -- rows of them, which cost more
            ADD ATTRIBUTE grant_ids text[],
            ADD ATTRIBUTE grant_remaining bigint[];
    END IF;
END $$;

-- The transitions need to see, in each statement, what was committed before it (R6).
CREATE OR REPLACE FUNCTION earmark.require_read_committed() RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    IF current_setting('transaction_isolation') <> 'read committed' THEN -- mutation: read-committed
        RAISE EXCEPTION 'the ledger needs isolation level "read committed", not "%"', current_setting('transaction_isolation')
            USING ERRCODE = 'object_not_in_prerequisite_state';
    END IF;
END $$;

-- Locks a reservation's row. Every transition of an existing reservation begins here (R6).
CREATE OR REPLACE FUNCTION earmark.lock_reservation(p_tenant text, p_id text) RETURNS earmark.reservations LANGUAGE plpgsql AS $$
DECLARE
    r earmark.reservations;
BEGIN
    PERFORM earmark.require_read_committed();
    SELECT * INTO r FROM earmark.reservations WHERE id = p_id AND tenant = p_tenant FOR NO KEY UPDATE; -- mutation: reservation-locked
    RETURN r;
END $$;

DROP FUNCTION IF EXISTS earmark.lock_affected(text, text[], text[], timestamptz, text[]); -- without p_actor: calls would be ambiguous
DROP FUNCTION IF EXISTS earmark.lock_affected(text, text[], text[], timestamptz, text[], text); -- without p_calls
DROP FUNCTION IF EXISTS earmark.lock_affected(text, text[], text[], timestamptz, text[], text, jsonb); -- with units as an array, which took a query to make

-- Locks the budgets that cover p_scopes in the units of p_amounts, then their windows at p_at, each in the
-- order of its key. Creates missing windows. Returns both as they are under the locks. If
-- p_pairs is given, it has the pairs 'scope unit' that a call needs. Before it locks, it makes the budgets that templates give
-- to p_scopes; after it has locked, those take over what their templates have changed. Both are p_actor's doing, or if p_calls has the calls
-- of a batch, that of the first one on the budget.
CREATE OR REPLACE FUNCTION earmark.lock_affected(p_tenant text, p_scopes text[], p_amounts jsonb, p_at timestamptz, p_pairs text[] DEFAULT NULL,
    p_actor text DEFAULT NULL, p_calls jsonb DEFAULT NULL) RETURNS earmark.affected_budget[]
LANGUAGE plpgsql AS $$
DECLARE
    v_paths     text[] := earmark.scope_paths(p_scopes);
    v_templates boolean; -- whether one is meant for these scopes
    v_match     record;
    v_budgets   earmark.budgets[];
    b           earmark.budgets;
    v_window    record;
    v_stored    boolean;
    v_opened    record;
    v_rolled    numeric;
    v_start     timestamptz;
    v_end       timestamptz;
    v_reserved  bigint;
    v_committed bigint;
    v_granted_reserved  bigint;
    v_granted_committed bigint;
    t           earmark.affected_budget;
    v_affected   earmark.affected_budget[];
BEGIN
    SELECT EXISTS (SELECT FROM earmark.budgets x WHERE x.tenant = p_tenant AND earmark.is_template(x.scope) AND x.archived_at IS NULL
                     AND x.scope = ANY (earmark.template_scopes(v_paths)))
    INTO v_templates FROM earmark.require_read_committed();
    IF v_templates THEN
        PERFORM earmark.keep_children(p_tenant, v_paths); -- mutation: child-kept
        v_match := earmark.templates_of(p_tenant, v_paths, earmark.units(p_amounts), p_pairs);
        IF v_match.is_missing THEN
            PERFORM earmark.make_children(v_match.templates, v_paths, p_pairs, p_actor, p_calls);
        END IF;
    END IF;
    v_budgets := ARRAY ( -- reads the current version of a row that it had to wait for
        SELECT x FROM earmark.budgets x
        WHERE x.tenant = p_tenant AND x.archived_at IS NULL AND x.scope = ANY (v_paths) AND p_amounts ? x.unit
          AND (p_pairs IS NULL OR x.scope || ' ' || x.unit = ANY (p_pairs)) -- mutation: own-pairs
        ORDER BY x.id FOR NO KEY UPDATE); -- mutation: budgets-locked
    FOREACH b IN ARRAY v_budgets LOOP
        -- As earmark.window_at does, and by key: while the tables have no statistics, a join would be planned as a scan.
        SELECT window_start, window_end, reserved, committed, granted_reserved, granted_committed
        INTO v_start, v_end, v_reserved, v_committed, v_granted_reserved, v_granted_committed FROM earmark.windows
        WHERE budget_id = b.id AND window_start <= p_at ORDER BY window_start DESC LIMIT 1 FOR NO KEY UPDATE;
        v_stored := FOUND AND (v_end <= p_at) IS NOT TRUE;
        v_rolled := 0;
        IF b.rolled_until IS NOT NULL AND (NOT v_stored OR v_start > b.rolled_until) THEN
            v_opened := earmark.roll_over(b, p_at, coalesce(earmark.first_actor(p_calls, b.scope, b.unit), p_actor)); -- before it follows: what is left is of the limit as it was
            b := v_opened.b;
            v_rolled := v_opened.rolled;
        END IF;
        IF b.template_id IS NOT NULL AND earmark.is_behind(b.template_id, b.revision) THEN
            -- After the lock of the window at p_at, because it may lock a later one (R6).
            b := earmark.follow(b, coalesce(earmark.first_actor(p_calls, b.scope, b.unit), p_actor)); -- mutation: follows-locked
        END IF;
        IF NOT v_stored THEN
            v_window := earmark.window_at(b, p_at);
            v_start := v_window.window_start;
            v_end := v_window.window_end;
            v_reserved := 0;
            v_committed := 0;
            v_granted_reserved := 0;
            v_granted_committed := 0;
            INSERT INTO earmark.windows (budget_id, window_start, window_end, next_committed, next_used) -- the budget is locked: nobody else does
            VALUES (b.id, v_start, v_end, CASE WHEN b.thresholds IS NOT NULL THEN earmark.next_threshold(b, 'committed') END,
                    CASE WHEN b.thresholds IS NOT NULL THEN earmark.next_threshold(b, 'used') END);
            IF v_end IS NOT NULL AND b.period <> 'rolling' THEN -- a slice is no window
                PERFORM earmark.emit('budget.window_opened', b.tenant, ARRAY [b.scope], b.id, NULL, v_start,
                    jsonb_build_object('unit', b.unit, 'limit', b.limit_amount, 'window_end', v_end)
                        || CASE WHEN b.rolled_until IS NULL THEN '{}' ELSE jsonb_build_object('rolled_over', v_rolled) END);
            END IF;
        END IF;
        IF b.overridden_until > p_at THEN -- most budgets have none, and pay nothing
            b := earmark.in_force(b, p_at);
        END IF;
        t := earmark.affect(b, v_start, v_end, v_reserved, v_committed);
        IF b.granted_until IS NOT NULL THEN -- as with overrides
            t := earmark.with_grants(t, b, p_at, v_granted_reserved, v_granted_committed);
        END IF;
        v_affected := v_affected || t;
    END LOOP;
    RETURN v_affected;
END $$;

DROP FUNCTION IF EXISTS earmark.lock_windows(earmark.affected_budget[]); -- without p_at: calls would be ambiguous

-- Locks the windows of p_affected in order and reads their balances. p_at is as for lock_affected, which has locked their budgets.
CREATE OR REPLACE FUNCTION earmark.lock_windows(p_affected earmark.affected_budget[], p_at timestamptz) RETURNS earmark.affected_budget[]
LANGUAGE plpgsql AS $$
DECLARE
    v_affected earmark.affected_budget[] := p_affected;
    t          earmark.affected_budget;
    v_window   earmark.windows;
    b          earmark.budgets;
    o          record;
BEGIN
    FOR i IN 1 .. coalesce(cardinality(v_affected), 0) LOOP
        LOOP
            SELECT * INTO v_window FROM earmark.windows w
            WHERE w.budget_id = v_affected[i].budget_id AND w.window_start = v_affected[i].window_start
            FOR NO KEY UPDATE;
            EXIT WHEN FOUND;
            INSERT INTO earmark.windows (budget_id, window_start, window_end)
            VALUES (v_affected[i].budget_id, v_affected[i].window_start, v_affected[i].window_end)
            ON CONFLICT DO NOTHING;
        END LOOP;
        v_affected[i].reserved := v_window.reserved;
        v_affected[i].committed := v_window.committed;
        t := v_affected[i];
        IF t.slice IS NOT NULL THEN
            o := earmark.other_slices(t.budget_id, t.window_start - t.slice * earmark.slices_before(), t.window_start, t.reserved + t.committed);
            v_affected[i].ceiling := t.ceiling + t.other_reserved + t.other_committed - o.reserved - o.committed;
            v_affected[i].other_reserved := o.reserved;
            v_affected[i].other_committed := o.committed;
        ELSIF t.grants_left IS NOT NULL THEN
            SELECT * INTO b FROM earmark.budgets WHERE id = t.budget_id;
            v_affected[i] := earmark.with_grants(earmark.affect(earmark.in_force(b, p_at), t.window_start, t.window_end, t.reserved, t.committed),
                b, p_at, v_window.granted_reserved, v_window.granted_committed);
        END IF;
    END LOOP;
    RETURN v_affected;
END $$;
