-- +goose Up
-- From nothing to held: the admission, and the reads that decide without one.

-- +goose StatementBegin
CREATE FUNCTION earmark.units(p_amounts jsonb) RETURNS text[] LANGUAGE plpgsql IMMUTABLE AS $$
BEGIN
    RETURN (SELECT array_agg(unit ORDER BY unit) FROM jsonb_object_keys(p_amounts) AS unit);
END $$;
-- +goose StatementEnd

-- +goose StatementBegin
-- What an existing row answers to an id that is used again; null when there is none.
CREATE FUNCTION earmark.replay(p_id text, p_tenant text, p_hash text) RETURNS jsonb LANGUAGE plpgsql STABLE AS $$
BEGIN
    RETURN (SELECT CASE WHEN r.tenant = p_tenant AND r.request_hash = p_hash THEN earmark.result('same', r)
                        ELSE jsonb_build_object('outcome', 'mismatch') END
            FROM earmark.reservations r WHERE r.id = p_id);
END $$;
-- +goose StatementEnd

-- +goose StatementBegin
-- Names the first scope that meets no budget, or else the first unit that no
-- touched budget counts; null when there is neither.
CREATE FUNCTION earmark.unmet(p_tenant text, p_scopes text[], p_units text[], p_touched earmark.touched[]) RETURNS jsonb
LANGUAGE plpgsql STABLE AS $$
DECLARE
    v_subject text;
BEGIN
    SELECT scope INTO v_subject FROM unnest(p_scopes) WITH ORDINALITY AS asked (scope, n)
    WHERE NOT EXISTS (SELECT 1 FROM unnest(p_touched) t WHERE asked.scope = t.scope OR starts_with(asked.scope, t.scope || '/'))
      AND NOT EXISTS (SELECT 1 FROM earmark.budgets b
                      WHERE b.tenant = p_tenant AND b.archived_at IS NULL AND b.scope = ANY (earmark.scope_paths(ARRAY [asked.scope])))
    ORDER BY n LIMIT 1;
    IF FOUND THEN
        RETURN jsonb_build_object('outcome', 'no_budget', 'subject', v_subject);
    END IF;
    SELECT unit INTO v_subject FROM unnest(p_units) AS unit
    WHERE unit NOT IN (SELECT t.unit FROM unnest(p_touched) t)
    ORDER BY unit LIMIT 1;
    IF FOUND THEN
        RETURN jsonb_build_object('outcome', 'unit_not_budgeted', 'subject', v_subject);
    END IF;
    RETURN NULL;
END $$;
-- +goose StatementEnd

-- +goose StatementBegin
-- Where p_amounts do not fit into p_touched: a 'denied' or 'overflow' answer, or
-- null when they fit. Sums are numeric here, so that none can overflow (R8).
CREATE FUNCTION earmark.misfit(p_touched earmark.touched[], p_amounts jsonb) RETURNS jsonb LANGUAGE plpgsql STABLE AS $$
DECLARE
    t            earmark.touched;
    v_requested  numeric;
    v_violations jsonb := '[]';
    v_retryable  boolean := true;
    v_retry_at   timestamptz;
    v_hopeless   boolean := false;
BEGIN
    FOREACH t IN ARRAY p_touched LOOP
        v_requested := (p_amounts ->> t.unit)::numeric;
        IF t.ceiling IS NULL THEN
            IF v_requested + t.reserved + t.committed > 9223372036854775807 THEN
                RETURN jsonb_build_object('outcome', 'overflow', 'subject', t.unit);
            END IF;
        ELSIF v_requested + t.reserved + t.committed > t.ceiling THEN
            v_violations := v_violations || jsonb_build_object('budget_id', t.budget_id, 'scope', t.scope, 'unit', t.unit,
                'limit', t.ceiling, 'reserved', t.reserved, 'committed', t.committed,
                'available', t.ceiling::numeric - t.reserved - t.committed, 'requested', v_requested);
            IF v_requested + t.committed > t.ceiling THEN
                v_retryable := false;
                v_hopeless := v_hopeless OR t.window_end IS NULL OR v_requested > t.ceiling;
                v_retry_at := greatest(v_retry_at, t.window_end);
            END IF;
        END IF;
    END LOOP;
    IF v_violations = '[]' THEN
        RETURN NULL;
    END IF;
    RETURN jsonb_build_object('outcome', 'denied', 'decision', jsonb_build_object('admitted', false, 'violations', v_violations,
        'retryable', v_retryable, 'retry_at', CASE WHEN NOT v_retryable AND NOT v_hopeless THEN v_retry_at END));
END $$;
-- +goose StatementEnd

-- +goose StatementBegin
-- Expires overdue 'release' reservations that stand in the way of an admission
-- which holds the locks of p_touched, and returns how many. It waits for no lock:
-- what somebody else works on is left to them.
CREATE FUNCTION earmark.expire_in_the_way(p_touched earmark.touched[], p_actor text) RETURNS integer LANGUAGE plpgsql AS $$
DECLARE
    c_most  CONSTANT integer := 100; -- reservations an admission; the sweeper does the rest
    r       earmark.reservations;
    v_count integer := 0;
BEGIN
    FOR r IN SELECT * FROM earmark.reservations o
             WHERE o.state = 'held' AND o.on_expiry = 'release' AND o.expires_at < clock_timestamp()
               AND EXISTS (SELECT 1 FROM earmark.reservation_budgets s JOIN unnest(p_touched) t ON t.budget_id = s.budget_id
                           WHERE s.reservation_id = o.id AND s.window_start = t.window_start)
             ORDER BY o.expires_at, o.id LIMIT c_most FOR UPDATE SKIP LOCKED
    LOOP
        IF (SELECT count(*) FROM earmark.reservation_budgets s WHERE s.reservation_id = r.id) =
           (SELECT count(*) FROM (SELECT 1 FROM earmark.windows w JOIN earmark.reservation_budgets s USING (budget_id, window_start)
                                  WHERE s.reservation_id = r.id FOR NO KEY UPDATE OF w SKIP LOCKED) AS locked) THEN
            PERFORM earmark.apply_expiry(r, p_actor, 'overdue, and in the way of an admission');
            v_count := v_count + 1;
        END IF;
    END LOOP;
    RETURN v_count;
END $$;
-- +goose StatementEnd

-- +goose StatementBegin
-- Sets p_amounts aside on every budget that covers one of p_scopes, or on none (R1, R2).
CREATE FUNCTION earmark.reserve(p_id text, p_tenant text, p_hash text, p_scopes text[], p_amounts jsonb, p_ttl_ms bigint, p_on_expiry text,
    p_metadata jsonb, p_workflow_id text, p_admit_by timestamptz, p_released boolean, p_actor text) RETURNS jsonb
LANGUAGE plpgsql SET lock_timeout = '1s' AS $$
DECLARE
    t         earmark.touched;
    r         earmark.reservations;
    v_touched earmark.touched[];
    v_answer  jsonb;
BEGIN
    v_answer := earmark.replay(p_id, p_tenant, p_hash);
    IF v_answer IS NOT NULL THEN
        RETURN v_answer;
    END IF;

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
    -- An earlier attempt with this id may have been admitted while this one waited.
    v_answer := earmark.replay(p_id, p_tenant, p_hash);
    IF v_answer IS NOT NULL THEN
        RETURN v_answer;
    END IF;
    IF clock_timestamp() > p_admit_by THEN
        RETURN jsonb_build_object('outcome', 'too_late');
    END IF;
    v_answer := earmark.unmet(p_tenant, p_scopes, earmark.units(p_amounts), v_touched);
    IF v_answer IS NOT NULL THEN
        RETURN v_answer;
    END IF;
    v_answer := earmark.misfit(v_touched, p_amounts);
    IF v_answer IS NOT NULL AND earmark.expire_in_the_way(v_touched, p_actor) > 0 THEN
        v_touched := earmark.lock_windows(v_touched);
        v_answer := earmark.misfit(v_touched, p_amounts);
    END IF;
    IF v_answer IS NOT NULL THEN
        RETURN v_answer;
    END IF;

    INSERT INTO earmark.reservations (id, tenant, state, request_hash, scopes, amounts, on_expiry, metadata, workflow_id, expires_at, over_limit)
    VALUES (p_id, p_tenant, 'held', p_hash, p_scopes, p_amounts, p_on_expiry, p_metadata, p_workflow_id,
            clock_timestamp() + p_ttl_ms * interval '1 millisecond',
            EXISTS (SELECT 1 FROM unnest(v_touched) u WHERE (p_amounts ->> u.unit)::numeric + u.reserved + u.committed > u.limit_amount))
    ON CONFLICT DO NOTHING RETURNING * INTO r;
    IF NOT FOUND THEN -- the same id for other budgets, at the same moment
        RETURN earmark.replay(p_id, p_tenant, p_hash);
    END IF;
    FOREACH t IN ARRAY v_touched LOOP
        INSERT INTO earmark.reservation_budgets (reservation_id, budget_id, window_start, unit, reserved)
        VALUES (p_id, t.budget_id, t.window_start, t.unit, (p_amounts ->> t.unit)::bigint);
        PERFORM earmark.post('reserve', p_tenant, p_id, t.budget_id, t.window_start, (p_amounts ->> t.unit)::bigint, 0, t.ceiling, p_actor, '');
    END LOOP;
    RETURN earmark.result('applied', r);
END $$;
-- +goose StatementEnd

-- +goose StatementBegin
-- Whether p_amounts would fit now, without a lock and without a change: 'applied',
-- 'denied', 'no_budget', 'unit_not_budgeted' or 'overflow'. A yes is only ever
-- decided by earmark.reserve. Overdue 'release' reservations do not stand in the
-- way, since an admission would expire them.
CREATE FUNCTION earmark.decide(p_tenant text, p_scopes text[], p_amounts jsonb) RETURNS jsonb
LANGUAGE plpgsql STABLE AS $$
DECLARE
    v_touched earmark.touched[];
    v_answer  jsonb;
BEGIN
    SELECT array_agg(ROW (b.id, b.scope, b.unit, b.period, b.limit_amount,
                          CASE b.enforcement WHEN 'hard' THEN b.limit_amount ELSE b.soft_ceiling END,
                          w.window_start, w.window_end, coalesce(s.reserved, 0), coalesce(s.committed, 0))::earmark.touched ORDER BY b.id)
    INTO v_touched
    FROM earmark.budgets b CROSS JOIN LATERAL earmark.window_bounds(b.period, b.timezone, clock_timestamp()) w
         LEFT JOIN earmark.windows s ON s.budget_id = b.id AND s.window_start = w.window_start
    WHERE b.tenant = p_tenant AND b.archived_at IS NULL AND b.scope = ANY (earmark.scope_paths(p_scopes))
      AND b.unit = ANY (earmark.units(p_amounts));

    v_answer := earmark.unmet(p_tenant, p_scopes, earmark.units(p_amounts), v_touched);
    IF v_answer IS NOT NULL THEN
        RETURN v_answer;
    END IF;
    v_answer := earmark.misfit(v_touched, p_amounts);
    IF v_answer IS NOT NULL THEN
        FOR i IN 1 .. cardinality(v_touched) LOOP
            v_touched[i].reserved := v_touched[i].reserved - coalesce((
                SELECT sum(s.reserved) FROM earmark.reservations o JOIN earmark.reservation_budgets s ON s.reservation_id = o.id
                WHERE o.state = 'held' AND o.on_expiry = 'release' AND o.expires_at < clock_timestamp()
                  AND s.budget_id = v_touched[i].budget_id AND s.window_start = v_touched[i].window_start), 0);
        END LOOP;
        v_answer := earmark.misfit(v_touched, p_amounts);
    END IF;
    RETURN coalesce(v_answer, jsonb_build_object('outcome', 'applied'));
END $$;
-- +goose StatementEnd

-- +goose StatementBegin
-- What one read tells before an admission: a row that exists, or else what
-- earmark.decide says; and the time, which deadlines are counted from.
CREATE FUNCTION earmark.preflight(p_id text, p_tenant text, p_hash text, p_scopes text[], p_amounts jsonb) RETURNS jsonb
LANGUAGE sql STABLE AS $$
    SELECT jsonb_build_object('now', clock_timestamp())
        || coalesce(earmark.replay(p_id, p_tenant, p_hash), earmark.decide(p_tenant, p_scopes, p_amounts))
$$;
-- +goose StatementEnd

-- +goose Down
DROP FUNCTION earmark.preflight, earmark.decide, earmark.reserve, earmark.expire_in_the_way, earmark.misfit, earmark.unmet,
    earmark.replay, earmark.units;
