-- +goose Up
-- What every transition shares: the bounds of windows, the locks, the one place
-- that changes a balance, and the form of an answer. All of it is PL/pgSQL, also
-- what would fit LANGUAGE sql: that is parsed and planned again in every call.

-- +goose StatementBegin
-- The window of a period that holds p_at: window_start <= p_at < window_end.
CREATE FUNCTION earmark.window_bounds(p_period text, p_timezone text, p_at timestamptz, OUT window_start timestamptz, OUT window_end timestamptz)
LANGUAGE plpgsql STABLE AS $$
DECLARE
    v_local timestamp;
    v_step  interval;
BEGIN
    IF p_period = 'lifetime' THEN
        window_start := 'epoch';
        RETURN;
    ELSIF p_period = 'hour' THEN
        window_start := date_trunc('hour', p_at, p_timezone);
        window_end := window_start + interval '1 hour';
        RETURN;
    END IF;
    v_step := ('1 ' || p_period)::interval;
    v_local := date_trunc(p_period, p_at AT TIME ZONE p_timezone);
    LOOP
        window_start := v_local AT TIME ZONE p_timezone;
        window_end := (v_local + v_step) AT TIME ZONE p_timezone;
        -- Where clocks are set back over midnight that midnight comes twice, and
        -- the first hour of the local day can lie before the window's start.
        IF p_at < window_start THEN
            v_local := v_local - v_step;
        ELSIF p_at >= window_end THEN
            v_local := v_local + v_step;
        ELSE
            RETURN;
        END IF;
    END LOOP;
END $$;
-- +goose StatementEnd

-- +goose StatementBegin
-- 'acme/ml/u1' gives {acme, acme/ml, acme/ml/u1}.
CREATE FUNCTION earmark.scope_paths(p_scopes text[]) RETURNS text[] LANGUAGE plpgsql IMMUTABLE AS $$
BEGIN
    RETURN (SELECT array_agg(DISTINCT array_to_string(s.segments[1:n], '/'))
            FROM (SELECT string_to_array(scope, '/') AS segments FROM unnest(p_scopes) AS scope) AS s,
                 generate_series(1, cardinality(s.segments)) AS n);
END $$;
-- +goose StatementEnd

-- One budget that a request touches, with its window and balance.
CREATE TYPE earmark.touched AS (
    budget_id text, scope text, unit text, period text, limit_amount bigint,
    ceiling   bigint, -- null: no ceiling
    window_start timestamptz, window_end timestamptz, reserved bigint, committed bigint
);

-- +goose StatementBegin
-- The transitions rely on each statement seeing what was committed before it (R6).
CREATE FUNCTION earmark.require_read_committed() RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    IF current_setting('transaction_isolation') <> 'read committed' THEN
        RAISE EXCEPTION 'the ledger needs isolation level "read committed", not "%"', current_setting('transaction_isolation')
            USING ERRCODE = 'object_not_in_prerequisite_state';
    END IF;
END $$;
-- +goose StatementEnd

-- +goose StatementBegin
-- Locks the budgets that cover p_scopes in p_units, then their windows at p_at
-- (null: now), each in the order of its key, makes the windows that are missing,
-- and returns both as they stand under the locks.
CREATE FUNCTION earmark.lock_touched(p_tenant text, p_scopes text[], p_units text[], p_at timestamptz) RETURNS earmark.touched[]
LANGUAGE plpgsql AS $$
DECLARE
    v_ids     text[];
    v_at      timestamptz;
    v_touched earmark.touched[];
BEGIN
    PERFORM earmark.require_read_committed();
    SELECT array_agg(id) INTO v_ids FROM (
        SELECT id FROM earmark.budgets
        WHERE tenant = p_tenant AND archived_at IS NULL AND scope = ANY (earmark.scope_paths(p_scopes)) AND unit = ANY (p_units)
        ORDER BY id FOR NO KEY UPDATE
    ) AS locked;

    v_at := coalesce(p_at, clock_timestamp());
    SELECT array_agg(ROW (b.id, b.scope, b.unit, b.period, b.limit_amount,
                          CASE b.enforcement WHEN 'hard' THEN b.limit_amount ELSE b.soft_ceiling END,
                          w.window_start, w.window_end, 0, 0)::earmark.touched ORDER BY b.id)
    INTO v_touched
    FROM earmark.budgets b CROSS JOIN LATERAL earmark.window_bounds(b.period, b.timezone, v_at) w
    WHERE b.id = ANY (v_ids);

    RETURN earmark.lock_windows(v_touched);
END $$;
-- +goose StatementEnd

-- +goose StatementBegin
-- Locks the windows of p_touched in order and reads their balances.
CREATE FUNCTION earmark.lock_windows(p_touched earmark.touched[]) RETURNS earmark.touched[]
LANGUAGE plpgsql AS $$
DECLARE
    v_touched earmark.touched[] := p_touched;
    v_window  earmark.windows;
BEGIN
    FOR i IN 1 .. coalesce(cardinality(v_touched), 0) LOOP
        LOOP
            SELECT * INTO v_window FROM earmark.windows w
            WHERE w.budget_id = v_touched[i].budget_id AND w.window_start = v_touched[i].window_start
            FOR NO KEY UPDATE;
            EXIT WHEN FOUND;
            INSERT INTO earmark.windows (budget_id, window_start, window_end)
            VALUES (v_touched[i].budget_id, v_touched[i].window_start, v_touched[i].window_end)
            ON CONFLICT DO NOTHING;
        END LOOP;
        v_touched[i].reserved := v_window.reserved;
        v_touched[i].committed := v_window.committed;
    END LOOP;
    RETURN v_touched;
END $$;
-- +goose StatementEnd

-- +goose StatementBegin
-- Changes one balance and says so in the journal. Nothing else does either, so
-- that a window's sums are its entries' sums (R3). p_ceiling is the limit that
-- an admission was held against.
CREATE FUNCTION earmark.post(p_kind text, p_tenant text, p_reservation_id text, p_budget_id text, p_window_start timestamptz,
    p_reserved_delta bigint, p_committed_delta bigint, p_ceiling bigint, p_actor text, p_reason text) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
    WITH changed AS (
        UPDATE earmark.windows SET reserved = reserved + p_reserved_delta, committed = committed + p_committed_delta
        WHERE budget_id = p_budget_id AND window_start = p_window_start
        RETURNING reserved, committed
    )
    INSERT INTO earmark.entries (kind, tenant, reservation_id, budget_id, window_start, reserved_delta, committed_delta,
                                 reserved_after, committed_after, ceiling, actor, reason)
    SELECT p_kind, p_tenant, p_reservation_id, p_budget_id, p_window_start, p_reserved_delta, p_committed_delta,
           reserved, committed, p_ceiling, p_actor, p_reason
    FROM changed;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'budget % has no window at %', p_budget_id, p_window_start USING ERRCODE = 'no_data_found';
    END IF;
END $$;
-- +goose StatementEnd

-- +goose StatementBegin
-- Says in the journal what changed no balance.
CREATE FUNCTION earmark.note(p_kind text, p_tenant text, p_reservation_id text, p_budget_id text, p_actor text, p_reason text) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO earmark.entries (kind, tenant, reservation_id, budget_id, actor, reason)
    VALUES (p_kind, p_tenant, p_reservation_id, p_budget_id, p_actor, p_reason);
END $$;
-- +goose StatementEnd

-- +goose StatementBegin
-- A reservation in the form that callers see.
CREATE FUNCTION earmark.reservation_json(r earmark.reservations) RETURNS jsonb LANGUAGE plpgsql STABLE AS $$
BEGIN
    RETURN jsonb_build_object(
        'id', r.id, 'state', r.state, 'scopes', r.scopes, 'amounts', r.amounts, 'usage', r.usage, 'overage', r.overage,
        'shortfall', r.shortfall, 'rejected_usage', r.rejected_usage, 'late', r.late, 'estimated', r.estimated,
        'over_limit', r.over_limit, 'created_at', r.created_at, 'expires_at', r.expires_at, 'settled_at', r.settled_at,
        'overdue', r.state = 'held' AND r.expires_at < clock_timestamp(), 'orphan', r.orphan, 'on_expiry', r.on_expiry,
        'reason', r.reason, 'metadata', r.metadata, 'workflow_id', r.workflow_id,
        'budgets', (
            SELECT coalesce(jsonb_agg(jsonb_build_object(
                'budget_id', s.budget_id, 'scope', b.scope, 'unit', s.unit, 'window_start', s.window_start,
                'reserved', s.reserved, 'committed', s.committed) ORDER BY b.scope, s.unit, s.budget_id), '[]')
            FROM earmark.reservation_budgets s JOIN earmark.budgets b ON b.id = s.budget_id
            WHERE s.reservation_id = r.id));
END $$;
-- +goose StatementEnd

-- +goose StatementBegin
-- What a transition answers: its outcome and what stands after it.
CREATE FUNCTION earmark.result(p_outcome text, r earmark.reservations) RETURNS jsonb LANGUAGE plpgsql STABLE AS $$
BEGIN
    RETURN jsonb_build_object('outcome', p_outcome, 'reservation', earmark.reservation_json(r),
        'remaining_ms', CASE WHEN r.state = 'held' THEN greatest(0, ceil(extract(epoch FROM r.expires_at - clock_timestamp()) * 1000))::bigint END);
END $$;
-- +goose StatementEnd

-- +goose Down
DROP FUNCTION earmark.result, earmark.reservation_json, earmark.note, earmark.post, earmark.lock_windows, earmark.lock_touched,
    earmark.require_read_committed, earmark.scope_paths, earmark.window_bounds;
DROP TYPE earmark.touched;
