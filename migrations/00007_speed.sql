-- +goose Up
-- The same rules in fewer statements. What changes a balance is earmark.post,
-- earmark.post_share and earmark.expire_all, and nothing else (R3).
-- Every lookup here is by a key. The plans are made once a session (plan_cache_mode),
-- since to plan an array parameter anew takes as long as to run it; and so that one
-- made while a table was small does not scan it when it has grown, without scans
-- (enable_seqscan).

-- +goose StatementBegin
-- 'acme/ml/u1' gives {acme/ml/u1, acme/ml, acme}. Several scopes' paths follow each
-- other, each path once.
CREATE OR REPLACE FUNCTION earmark.scope_paths(p_scopes text[]) RETURNS text[] LANGUAGE plpgsql IMMUTABLE AS $$
DECLARE
    v_path  text;
    v_paths text[] := '{}';
    v_slash integer;
BEGIN
    FOREACH v_path IN ARRAY p_scopes LOOP
        WHILE v_path <> ALL (v_paths) LOOP -- what is above a path that is there is there as well
            v_paths := v_paths || v_path;
            v_slash := position('/' IN reverse(v_path));
            EXIT WHEN v_slash = 0;
            v_path := left(v_path, -v_slash);
        END LOOP;
    END LOOP;
    RETURN v_paths;
END $$;
-- +goose StatementEnd

-- +goose StatementBegin
-- Whether p_budgets, scopes of budgets, cover every one of p_scopes.
CREATE OR REPLACE FUNCTION earmark.covers(p_budgets text[], p_scopes text[]) RETURNS boolean LANGUAGE plpgsql IMMUTABLE AS $$
DECLARE
    v_scope text;
BEGIN
    FOREACH v_scope IN ARRAY p_scopes LOOP
        IF NOT earmark.scope_paths(ARRAY [v_scope]) && p_budgets THEN
            RETURN false;
        END IF;
    END LOOP;
    RETURN true;
END $$;
-- +goose StatementEnd

-- +goose StatementBegin
CREATE OR REPLACE FUNCTION earmark.replay(p_id text, p_tenant text, p_hash text) RETURNS jsonb LANGUAGE plpgsql STABLE AS $$
DECLARE
    r earmark.reservations;
BEGIN
    SELECT * INTO r FROM earmark.reservations WHERE id = p_id;
    IF NOT FOUND THEN
        RETURN NULL;
    ELSIF r.tenant = p_tenant AND r.request_hash = p_hash THEN
        RETURN earmark.result('same', r);
    END IF;
    RETURN jsonb_build_object('outcome', 'mismatch');
END $$;
-- +goose StatementEnd

-- +goose StatementBegin
-- Locks the budgets that cover p_scopes in p_units, then their windows at p_at
-- (null: now), each in the order of its key, makes the windows that are missing,
-- and returns both as they stand under the locks.
CREATE OR REPLACE FUNCTION earmark.lock_touched(p_tenant text, p_scopes text[], p_units text[], p_at timestamptz) RETURNS earmark.touched[]
LANGUAGE plpgsql AS $$
DECLARE
    v_paths     text[] := earmark.scope_paths(p_scopes);
    v_budgets   earmark.budgets[];
    b           earmark.budgets;
    v_at        timestamptz;
    v_start     timestamptz;
    v_end       timestamptz;
    v_reserved  bigint;
    v_committed bigint;
    v_touched   earmark.touched[];
BEGIN
    PERFORM earmark.require_read_committed();
    v_budgets := ARRAY ( -- a row that had to be waited for is read as it is by then
        SELECT x FROM earmark.budgets x
        WHERE x.tenant = p_tenant AND x.archived_at IS NULL AND x.scope = ANY (v_paths) AND x.unit = ANY (p_units)
        ORDER BY x.id FOR NO KEY UPDATE);
    v_at := coalesce(p_at, clock_timestamp());
    FOREACH b IN ARRAY v_budgets LOOP
        v_start := 'epoch';
        v_end := NULL;
        IF b.period <> 'lifetime' THEN
            SELECT w.window_start, w.window_end INTO v_start, v_end FROM earmark.window_bounds(b.period, b.timezone, v_at) w;
        END IF;
        LOOP -- by its key: a join would be planned as a scan while the tables have no statistics
            SELECT reserved, committed INTO v_reserved, v_committed FROM earmark.windows
            WHERE budget_id = b.id AND window_start = v_start FOR NO KEY UPDATE;
            EXIT WHEN FOUND;
            INSERT INTO earmark.windows (budget_id, window_start, window_end) VALUES (b.id, v_start, v_end) ON CONFLICT DO NOTHING;
        END LOOP;
        v_touched := v_touched || ROW (b.id, b.scope, b.unit, b.period, b.limit_amount,
            CASE b.enforcement WHEN 'hard' THEN b.limit_amount ELSE b.soft_ceiling END, v_start, v_end, v_reserved, v_committed)::earmark.touched;
    END LOOP;
    RETURN v_touched;
END $$;
-- +goose StatementEnd

-- +goose StatementBegin
-- Is earmark.post, and makes or changes the reservation's share in that budget, in one
-- statement. p_unit is given when the share is new; otherwise p_committed_delta is
-- counted to it, and it is overdue no more. Everything is looked up by its key: a join
-- would be planned as a scan while the tables have no statistics.
CREATE OR REPLACE FUNCTION earmark.post_share(p_kind text, p_tenant text, p_reservation_id text, p_budget_id text, p_window_start timestamptz,
    p_unit text, p_reserved_delta bigint, p_committed_delta bigint, p_overdue_at timestamptz, p_ceiling bigint, p_actor text, p_reason text) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
    IF p_unit IS NOT NULL THEN
        WITH changed AS (
            UPDATE earmark.windows SET reserved = reserved + p_reserved_delta, committed = committed + p_committed_delta
            WHERE budget_id = p_budget_id AND window_start = p_window_start
            RETURNING reserved, committed
        ), share AS (
            INSERT INTO earmark.reservation_budgets (reservation_id, budget_id, window_start, unit, reserved, committed, overdue_at)
            VALUES (p_reservation_id, p_budget_id, p_window_start, p_unit, p_reserved_delta, p_committed_delta, p_overdue_at)
        )
        INSERT INTO earmark.entries (kind, tenant, reservation_id, budget_id, window_start, reserved_delta, committed_delta,
                                     reserved_after, committed_after, ceiling, actor, reason)
        SELECT p_kind, p_tenant, p_reservation_id, p_budget_id, p_window_start, p_reserved_delta, p_committed_delta,
               reserved, committed, p_ceiling, p_actor, p_reason
        FROM changed;
    ELSE
        WITH changed AS (
            UPDATE earmark.windows SET reserved = reserved + p_reserved_delta, committed = committed + p_committed_delta
            WHERE budget_id = p_budget_id AND window_start = p_window_start
            RETURNING reserved, committed
        ), share AS (
            UPDATE earmark.reservation_budgets SET committed = committed + p_committed_delta, overdue_at = NULL
            WHERE reservation_id = p_reservation_id AND budget_id = p_budget_id
        )
        INSERT INTO earmark.entries (kind, tenant, reservation_id, budget_id, window_start, reserved_delta, committed_delta,
                                     reserved_after, committed_after, ceiling, actor, reason)
        SELECT p_kind, p_tenant, p_reservation_id, p_budget_id, p_window_start, p_reserved_delta, p_committed_delta,
               reserved, committed, p_ceiling, p_actor, p_reason
        FROM changed;
    END IF;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'budget % has no window at %', p_budget_id, p_window_start USING ERRCODE = 'no_data_found';
    END IF;
END $$;
-- +goose StatementEnd

-- +goose StatementBegin
-- A reservation in the form that callers see. The budgets' scopes are looked up one by
-- one: a join is planned as a scan of all budgets while the tables have no statistics.
CREATE OR REPLACE FUNCTION earmark.reservation_json(r earmark.reservations) RETURNS jsonb LANGUAGE plpgsql STABLE AS $$
BEGIN
    RETURN jsonb_build_object(
        'id', r.id, 'state', r.state, 'scopes', r.scopes, 'amounts', r.amounts, 'usage', r.usage, 'overage', r.overage,
        'shortfall', r.shortfall, 'rejected_usage', r.rejected_usage, 'late', r.late, 'estimated', r.estimated,
        'over_limit', r.over_limit, 'created_at', r.created_at, 'expires_at', r.expires_at, 'settled_at', r.settled_at,
        'overdue', r.state = 'held' AND r.expires_at < clock_timestamp(), 'orphan', r.orphan, 'on_expiry', r.on_expiry,
        'reason', r.reason, 'metadata', r.metadata, 'workflow_id', r.workflow_id,
        'budgets', (
            SELECT coalesce(jsonb_agg(jsonb_build_object(
                'budget_id', s.budget_id, 'scope', s.scope, 'unit', s.unit, 'window_start', s.window_start,
                'reserved', s.reserved, 'committed', s.committed) ORDER BY s.scope, s.unit, s.budget_id), '[]')
            FROM (SELECT x.*, (SELECT b.scope FROM earmark.budgets b WHERE b.id = x.budget_id) AS scope
                  FROM earmark.reservation_budgets x WHERE x.reservation_id = r.id OFFSET 0) AS s)); -- OFFSET: once a row
END $$;
-- +goose StatementEnd

-- +goose StatementBegin
-- Sets p_amounts aside on every budget that covers one of p_scopes, or on none (R1, R2).
CREATE OR REPLACE FUNCTION earmark.reserve(p_id text, p_tenant text, p_hash text, p_scopes text[], p_amounts jsonb, p_ttl_ms bigint, p_on_expiry text,
    p_metadata jsonb, p_workflow_id text, p_admit_by timestamptz, p_released boolean, p_actor text) RETURNS jsonb
LANGUAGE plpgsql SET lock_timeout = '1s' SET plan_cache_mode = 'force_generic_plan' SET enable_seqscan = off AS $$
DECLARE
    t            earmark.touched;
    r            earmark.reservations;
    v_touched    earmark.touched[];
    v_answer     jsonb;
    v_amount     numeric; -- so that no sum can overflow (R8)
    v_missing    jsonb := p_amounts;
    v_scopes     text[] := '{}';
    v_fits       boolean := true;
    v_over_limit boolean := false;
BEGIN
    IF p_released THEN -- leave a row, so that an attempt still under way cannot reserve after this
        INSERT INTO earmark.reservations (id, tenant, state, request_hash, scopes, amounts, on_expiry, metadata, workflow_id, expires_at, settled_at, reason)
        VALUES (p_id, p_tenant, 'released', p_hash, p_scopes, p_amounts, p_on_expiry, p_metadata, p_workflow_id,
                clock_timestamp() + p_ttl_ms * interval '1 millisecond', clock_timestamp(), 'released before it was reserved')
        ON CONFLICT DO NOTHING RETURNING * INTO r;
        IF NOT FOUND THEN
            RETURN earmark.replay(p_id, p_tenant, p_hash);
        END IF;
        PERFORM earmark.note('release', p_tenant, p_id, NULL, p_actor, 'released before it was reserved');
        RETURN earmark.result('released', r);
    END IF;

    v_touched := earmark.lock_touched(p_tenant, p_scopes, earmark.units(p_amounts), NULL);
    -- An earlier attempt with this id may have been admitted before or meanwhile.
    v_answer := earmark.replay(p_id, p_tenant, p_hash);
    IF v_answer IS NOT NULL THEN
        RETURN v_answer;
    END IF;
    IF clock_timestamp() > p_admit_by THEN
        RETURN jsonb_build_object('outcome', 'too_late');
    END IF;
    FOREACH t IN ARRAY coalesce(v_touched, '{}') LOOP
        v_amount := (p_amounts ->> t.unit)::numeric;
        v_fits := v_fits AND v_amount + t.reserved + t.committed <= coalesce(t.ceiling, 9223372036854775807);
        v_over_limit := v_over_limit OR v_amount + t.reserved + t.committed > t.limit_amount;
        v_missing := v_missing - t.unit;
        v_scopes := v_scopes || t.scope;
    END LOOP;
    IF v_missing <> '{}' OR NOT earmark.covers(v_scopes, p_scopes) THEN
        v_answer := earmark.unmet(p_tenant, p_scopes, earmark.units(p_amounts), v_touched);
        IF v_answer IS NOT NULL THEN -- null: what covers a scope counts other units
            RETURN v_answer;
        END IF;
    END IF;
    IF NOT v_fits THEN
        v_answer := earmark.misfit(v_touched, p_amounts);
        IF earmark.expire_in_the_way(v_touched, p_actor) > 0 THEN
            v_touched := earmark.lock_windows(v_touched);
            v_answer := earmark.misfit(v_touched, p_amounts);
            v_over_limit := EXISTS (SELECT 1 FROM unnest(v_touched) u WHERE (p_amounts ->> u.unit)::numeric + u.reserved + u.committed > u.limit_amount);
        END IF;
        IF v_answer IS NOT NULL THEN
            RETURN v_answer;
        END IF;
    END IF;

    INSERT INTO earmark.reservations (id, tenant, state, request_hash, scopes, amounts, on_expiry, metadata, workflow_id, expires_at, over_limit)
    VALUES (p_id, p_tenant, 'held', p_hash, p_scopes, p_amounts, p_on_expiry, p_metadata, p_workflow_id,
            clock_timestamp() + p_ttl_ms * interval '1 millisecond', v_over_limit)
    ON CONFLICT DO NOTHING RETURNING * INTO r;
    IF NOT FOUND THEN -- the same id for other budgets, at the same moment
        RETURN earmark.replay(p_id, p_tenant, p_hash);
    END IF;
    FOREACH t IN ARRAY v_touched LOOP
        PERFORM earmark.post_share('reserve', p_tenant, p_id, t.budget_id, t.window_start, t.unit, (p_amounts ->> t.unit)::bigint, 0,
            CASE p_on_expiry WHEN 'release' THEN r.expires_at END, t.ceiling, p_actor, '');
    END LOOP;
    RETURN earmark.result('applied', r);
END $$;
-- +goose StatementEnd

-- +goose StatementBegin
-- What one read tells before an admission: a row that exists, or else what
-- earmark.decide says; and the time, which deadlines are counted from. A plain yes is
-- told by one look at the balances.
CREATE OR REPLACE FUNCTION earmark.preflight(p_id text, p_tenant text, p_hash text, p_scopes text[], p_amounts jsonb) RETURNS jsonb
LANGUAGE plpgsql STABLE SET plan_cache_mode = 'force_generic_plan' SET enable_seqscan = off AS $$
DECLARE
    v_answer jsonb := earmark.replay(p_id, p_tenant, p_hash);
    v_paths  text[];
    v_fits   boolean;
    v_units  text[];
    v_scopes text[];
BEGIN
    IF v_answer IS NOT NULL THEN
        RETURN v_answer || jsonb_build_object('now', clock_timestamp());
    END IF;
    v_paths := earmark.scope_paths(p_scopes);
    SELECT bool_and((p_amounts ->> b.unit)::numeric + coalesce(w.reserved, 0) + coalesce(w.committed, 0)
                    <= coalesce(CASE b.enforcement WHEN 'hard' THEN b.limit_amount ELSE b.soft_ceiling END, 9223372036854775807)),
           array_agg(b.unit), array_agg(b.scope)
    INTO v_fits, v_units, v_scopes
    FROM earmark.budgets b CROSS JOIN LATERAL earmark.window_bounds(b.period, b.timezone, clock_timestamp()) bounds
         LEFT JOIN earmark.windows w ON w.budget_id = b.id AND w.window_start = bounds.window_start
    WHERE b.tenant = p_tenant AND b.archived_at IS NULL AND b.scope = ANY (v_paths) AND p_amounts ? b.unit;
    IF v_fits AND p_amounts - v_units = '{}' AND earmark.covers(v_scopes, p_scopes) THEN
        RETURN jsonb_build_object('outcome', 'applied', 'now', clock_timestamp());
    END IF;
    RETURN earmark.decide(p_tenant, p_scopes, p_amounts) || jsonb_build_object('now', clock_timestamp());
END $$;
-- +goose StatementEnd

-- The attempts at a commit that were refused. A message of such an attempt may still be
-- on its way to the workflow, and arrive when nothing refuses it any more.
ALTER TABLE earmark.reservations ADD COLUMN IF NOT EXISTS refused_attempts text[] COLLATE "C";

-- Replaced by one that takes the attempt too, which the release before leaves out.
DROP FUNCTION IF EXISTS earmark.commit(text, text, jsonb, text, text);

-- +goose StatementBegin
-- Charges p_usage and gives back the rest of what is held. Usage that turns up
-- after an expiry is late: it is charged in full whatever the policies say, since
-- the money is gone. Estimates are corrected by the first real usage. What was
-- answered with a refusal stays refused: p_attempt names one attempt of a caller,
-- which may be applied twice, and a new decision is a new attempt.
CREATE OR REPLACE FUNCTION earmark.commit(p_tenant text, p_id text, p_usage jsonb, p_actor text, p_reason text, p_attempt text DEFAULT '') RETURNS jsonb
LANGUAGE plpgsql SET lock_timeout = '1s' SET plan_cache_mode = 'force_generic_plan' SET enable_seqscan = off AS $$
DECLARE
    c_attempts  CONSTANT integer := 20; -- the last ones that are remembered
    r           earmark.reservations := earmark.lock_reservation(p_tenant, p_id);
    s           record;
    v_late      boolean;
    v_overage   jsonb;
    v_shortfall jsonb;
    v_used      bigint;
    v_charged   bigint;
    v_subject   text;
    v_reason    text;
    v_units     text[];
    v_unit      text;
    v_over      numeric;
BEGIN
    IF r.id IS NULL THEN
        RETURN jsonb_build_object('outcome', 'unknown');
    END IF;
    v_units := earmark.units(p_usage);
    IF r.amounts - v_units <> '{}' OR NOT r.amounts ?& v_units THEN
        SELECT unit INTO v_subject FROM unnest(v_units || earmark.units(r.amounts)) AS unit
        WHERE NOT (p_usage ? unit AND r.amounts ? unit) ORDER BY unit LIMIT 1;
        RETURN earmark.result('units_mismatch', r) || jsonb_build_object('subject', v_subject);
    END IF;

    IF r.state = 'committed' AND NOT r.estimated THEN
        RETURN earmark.result(CASE WHEN r.usage = p_usage THEN 'same' ELSE 'conflict' END, r);
    ELSIF r.state = 'released' THEN
        v_reason := format('usage %s came after the release and was not charged', p_usage);
        IF NOT EXISTS (SELECT 1 FROM earmark.entries WHERE reservation_id = r.id AND kind = 'refuse' AND reason = v_reason) THEN
            PERFORM earmark.note('refuse', r.tenant, r.id, NULL, p_actor, v_reason);
        END IF;
        RETURN earmark.result('conflict', r);
    ELSIF p_attempt = ANY (r.refused_attempts) THEN
        RETURN earmark.result('overage_rejected', r);
    END IF;

    v_late := r.state <> 'held';
    FOREACH v_unit IN ARRAY v_units LOOP
        v_over := (p_usage ->> v_unit)::numeric - (r.amounts ->> v_unit)::numeric;
        IF v_over > 0 THEN
            v_overage := coalesce(v_overage, '{}') || jsonb_build_object(v_unit, v_over);
        END IF;
    END LOOP;
    v_reason := CASE WHEN v_late THEN concat_ws(': ', CASE WHEN r.estimated THEN 'late, corrects an estimate' ELSE 'late' END, nullif(p_reason, '')) ELSE p_reason END;

    IF v_overage IS NULL OR v_late THEN -- no policy has a say
        FOR s IN SELECT * FROM earmark.reservation_budgets WHERE reservation_id = r.id ORDER BY budget_id, window_start LOOP
            PERFORM earmark.post_share('commit', r.tenant, r.id, s.budget_id, s.window_start, NULL,
                CASE WHEN r.state IN ('held', 'review') THEN -s.reserved ELSE 0 END, (p_usage ->> s.unit)::bigint - s.committed, NULL, NULL, p_actor, v_reason);
        END LOOP;
    ELSE
        -- A policy decides, and it reads limits and balances: under their locks.
        PERFORM 1 FROM earmark.budgets b
        WHERE b.id IN (SELECT budget_id FROM earmark.reservation_budgets WHERE reservation_id = r.id)
        ORDER BY b.id FOR NO KEY UPDATE;
        IF EXISTS (SELECT 1 FROM earmark.reservation_budgets x JOIN earmark.budgets b ON b.id = x.budget_id
                   WHERE x.reservation_id = r.id AND b.overage = 'reject' AND v_overage ? x.unit) THEN
            IF r.rejected_usage IS DISTINCT FROM p_usage THEN
                UPDATE earmark.reservations SET rejected_usage = p_usage, on_expiry = 'review' WHERE id = r.id RETURNING * INTO r;
                PERFORM earmark.note('reject', r.tenant, r.id, NULL, p_actor, format('usage %s is over the reserved amount', p_usage));
            END IF;
            IF p_attempt <> '' THEN
                UPDATE earmark.reservations
                SET refused_attempts = (ARRAY [p_attempt] || refused_attempts)[1:c_attempts] WHERE id = r.id;
            END IF;
            RETURN earmark.result('overage_rejected', r);
        END IF;
        PERFORM 1 FROM earmark.windows w JOIN earmark.reservation_budgets x USING (budget_id, window_start)
        WHERE x.reservation_id = r.id ORDER BY w.budget_id, w.window_start FOR NO KEY UPDATE OF w;
        FOR s IN
            SELECT x.*, CASE b.enforcement WHEN 'hard' THEN b.limit_amount ELSE b.soft_ceiling END AS ceiling, b.overage,
                   w.reserved AS window_reserved, w.committed AS window_committed
            FROM earmark.reservation_budgets x JOIN earmark.budgets b ON b.id = x.budget_id JOIN earmark.windows w USING (budget_id, window_start)
            WHERE x.reservation_id = r.id ORDER BY x.budget_id, x.window_start
        LOOP
            v_used := (p_usage ->> s.unit)::bigint;
            v_charged := v_used;
            IF v_used > s.reserved AND s.overage = 'allow_if_available' AND s.ceiling IS NOT NULL THEN
                -- What is free beside the reservation's own amount, which the window still counts.
                v_charged := s.reserved + least(v_used - s.reserved, greatest(0, s.ceiling::numeric - s.window_reserved - s.window_committed));
            END IF;
            IF v_charged < v_used THEN -- with several budgets, the largest part that one of them did not charge
                v_shortfall := coalesce(v_shortfall, '{}') || jsonb_build_object(s.unit, greatest(v_used - v_charged, (v_shortfall ->> s.unit)::bigint));
            END IF;
            PERFORM earmark.post_share('commit', r.tenant, r.id, s.budget_id, s.window_start, NULL, -s.reserved, v_charged - s.committed, NULL, NULL, p_actor, v_reason);
        END LOOP;
    END IF;
    UPDATE earmark.reservations SET state = 'committed', usage = p_usage, overage = v_overage, shortfall = v_shortfall, late = v_late,
        estimated = false, settled_at = clock_timestamp(), reason = v_reason, orphan = false,
        refresh_due = r.refresh_due OR r.state = 'review' OR (p_actor <> 'workflow' AND r.state = 'held') -- in review no timer looks again
    WHERE id = r.id RETURNING * INTO r;
    RETURN earmark.result('applied', r);
END $$;
-- +goose StatementEnd

-- +goose StatementBegin
-- Is earmark.reserve for several calls of one tenant, in one transaction. The locks of
-- all come first, in order (R6); then each is decided in turn, by the same rules.
CREATE OR REPLACE FUNCTION earmark.reserve_together(p_tenant text, p_calls jsonb, p_actor text) RETURNS SETOF jsonb
LANGUAGE plpgsql SET lock_timeout = '1s' SET plan_cache_mode = 'force_generic_plan' SET enable_seqscan = off AS $$
DECLARE
    c        record;
    v_scopes text[] := '{}';
    v_units  text[] := '{}';
BEGIN
    FOR c IN SELECT * FROM jsonb_to_recordset(p_calls) AS x (scopes text[], amounts jsonb, released boolean) WHERE NOT released LOOP
        v_scopes := v_scopes || c.scopes;
        v_units := v_units || earmark.units(c.amounts);
    END LOOP;
    PERFORM earmark.lock_touched(p_tenant, v_scopes, v_units, NULL);
    FOR c IN SELECT * FROM jsonb_to_recordset(p_calls) AS x (id text, hash text, scopes text[], amounts jsonb, ttl_ms bigint, on_expiry text,
                                                             metadata jsonb, workflow_id text, admit_by timestamptz, released boolean) LOOP
        RETURN NEXT earmark.reserve(c.id, p_tenant, c.hash, c.scopes, c.amounts, c.ttl_ms, c.on_expiry, c.metadata, c.workflow_id,
            c.admit_by, c.released, p_actor);
    END LOOP;
END $$;
-- +goose StatementEnd

-- +goose StatementBegin
-- Is earmark.commit for several calls, in one transaction. The locks of all come
-- first, in order (R6), so it is for usage that is not more than was reserved: a
-- policy would need locks that come earlier. It waits for no reservation's row; where
-- somebody else works on one, the answer is null, and the call is to be made alone.
CREATE OR REPLACE FUNCTION earmark.commit_together(p_calls jsonb) RETURNS SETOF jsonb
LANGUAGE plpgsql SET lock_timeout = '1s' SET plan_cache_mode = 'force_generic_plan' SET enable_seqscan = off AS $$
DECLARE
    c     record;
    s     record;
    v_ids text[] := '{}';
BEGIN
    PERFORM earmark.require_read_committed();
    FOR c IN SELECT * FROM jsonb_to_recordset(p_calls) AS x (id text) LOOP
        v_ids := v_ids || c.id;
    END LOOP;
    v_ids := ARRAY (SELECT id FROM earmark.reservations WHERE id = ANY (v_ids) ORDER BY id FOR NO KEY UPDATE SKIP LOCKED);
    FOR s IN SELECT DISTINCT budget_id, window_start FROM earmark.reservation_budgets WHERE reservation_id = ANY (v_ids) ORDER BY 1, 2 LOOP
        PERFORM 1 FROM earmark.windows WHERE budget_id = s.budget_id AND window_start = s.window_start FOR NO KEY UPDATE;
    END LOOP;
    FOR c IN SELECT * FROM jsonb_to_recordset(p_calls) AS x (tenant text, id text, usage jsonb, actor text, reason text, attempt text) LOOP
        RETURN NEXT CASE WHEN c.id = ANY (v_ids) THEN earmark.commit(c.tenant, c.id, c.usage, c.actor, c.reason, coalesce(c.attempt, '')) END;
    END LOOP;
END $$;
-- +goose StatementEnd

-- A table's CHECKs are parsed anew in every statement, lists of values most slowly; they
-- were a quarter of what a commit costs. The same conditions in one function each are
-- compiled once a session. R1's (entries_admission_check) stays as it is.

-- +goose StatementBegin
CREATE OR REPLACE FUNCTION earmark.is_reservation(p_state text, p_on_expiry text, p_used boolean, p_settled boolean, p_expires boolean, p_estimated boolean) RETURNS boolean
LANGUAGE plpgsql IMMUTABLE AS $$
BEGIN
    RETURN (p_state IN ('held', 'committed', 'released', 'expired', 'review')
        AND p_on_expiry IN ('release', 'commit', 'review')
        AND (p_state = 'committed') = p_used
        AND CASE WHEN p_state IN ('held', 'review') THEN NOT p_settled AND p_expires ELSE p_settled END
        AND (NOT p_estimated OR p_state = 'committed')) IS TRUE;
END $$;
-- +goose StatementEnd

-- +goose StatementBegin
CREATE OR REPLACE FUNCTION earmark.is_entry(p_kind text, p_reservation_id text, p_budget_id text, p_window_start timestamptz, p_reserved_delta bigint,
    p_committed_delta bigint, p_reserved_after bigint, p_pruned_entries bigint, p_pruned_reservations bigint, p_actor text) RETURNS boolean
LANGUAGE plpgsql IMMUTABLE AS $$
BEGIN
    RETURN (p_kind IN ('reserve', 'commit', 'release', 'expire', 'charge', 'extend', 'review', 'reject', 'refuse', 'budget', 'adopt', 'checkpoint')
        AND p_actor <> ''
        AND (p_reservation_id IS NOT NULL OR p_budget_id IS NOT NULL)
        AND (p_window_start IS NULL) = (p_reserved_after IS NULL)
        AND (p_window_start IS NOT NULL OR (p_reserved_delta = 0 AND p_committed_delta = 0))
        AND CASE p_kind WHEN 'checkpoint' THEN p_window_start IS NOT NULL AND p_reservation_id IS NULL AND p_reserved_delta = 0
                                               AND p_pruned_entries > 0 AND p_pruned_reservations > 0
                        ELSE p_pruned_entries IS NULL AND p_pruned_reservations IS NULL END) IS TRUE;
END $$;
-- +goose StatementEnd

-- NOT VALID: what is there already was held against the same conditions.
ALTER TABLE earmark.reservations
    DROP CONSTRAINT reservations_state_check, DROP CONSTRAINT reservations_on_expiry_check, DROP CONSTRAINT reservations_open_check,
    DROP CONSTRAINT reservations_settled_check, DROP CONSTRAINT reservations_usage_check, DROP CONSTRAINT reservations_estimated_check,
    ADD CONSTRAINT reservations_state_check
        CHECK (earmark.is_reservation(state, on_expiry, usage IS NOT NULL, settled_at IS NOT NULL, expires_at IS NOT NULL, estimated)) NOT VALID;
ALTER TABLE earmark.entries
    DROP CONSTRAINT entries_kind_check, DROP CONSTRAINT entries_actor_check, DROP CONSTRAINT entries_check, DROP CONSTRAINT entries_check1,
    DROP CONSTRAINT entries_check2, DROP CONSTRAINT entries_checkpoint_check,
    ADD CONSTRAINT entries_kind_check
        CHECK (earmark.is_entry(kind, reservation_id, budget_id, window_start, reserved_delta, committed_delta, reserved_after, pruned_entries, pruned_reservations, actor)) NOT VALID;

-- +goose Down
-- What the release before calls stays: it works there as well.
ALTER TABLE earmark.reservations DROP CONSTRAINT reservations_state_check,
    ADD CONSTRAINT reservations_state_check CHECK (state IN ('held', 'committed', 'released', 'expired', 'review')) NOT VALID,
    ADD CONSTRAINT reservations_on_expiry_check CHECK (on_expiry IN ('release', 'commit', 'review')) NOT VALID,
    ADD CONSTRAINT reservations_open_check CHECK (state NOT IN ('held', 'review') OR (settled_at IS NULL AND expires_at IS NOT NULL AND usage IS NULL)) NOT VALID,
    ADD CONSTRAINT reservations_settled_check CHECK (state IN ('held', 'review') OR settled_at IS NOT NULL) NOT VALID,
    ADD CONSTRAINT reservations_usage_check CHECK ((state = 'committed') = (usage IS NOT NULL)) NOT VALID,
    ADD CONSTRAINT reservations_estimated_check CHECK (NOT estimated OR state = 'committed') NOT VALID;
ALTER TABLE earmark.entries DROP CONSTRAINT entries_kind_check,
    ADD CONSTRAINT entries_kind_check CHECK (kind IN ('reserve', 'commit', 'release', 'expire', 'charge', 'extend', 'review', 'reject', 'refuse', 'budget', 'adopt', 'checkpoint')) NOT VALID,
    ADD CONSTRAINT entries_actor_check CHECK (actor <> '') NOT VALID,
    ADD CONSTRAINT entries_check CHECK (reservation_id IS NOT NULL OR budget_id IS NOT NULL) NOT VALID,
    ADD CONSTRAINT entries_check1 CHECK ((window_start IS NULL) = (reserved_after IS NULL)) NOT VALID,
    ADD CONSTRAINT entries_check2 CHECK (window_start IS NOT NULL OR (reserved_delta = 0 AND committed_delta = 0)) NOT VALID,
    ADD CONSTRAINT entries_checkpoint_check CHECK (CASE kind WHEN 'checkpoint' THEN window_start IS NOT NULL AND reservation_id IS NULL
        AND reserved_delta = 0 AND pruned_entries > 0 AND pruned_reservations > 0 ELSE pruned_entries IS NULL AND pruned_reservations IS NULL END) NOT VALID;
DROP FUNCTION earmark.is_entry, earmark.is_reservation;
