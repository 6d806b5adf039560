-- Events: what other programs want to learn about budgets and reservations. Each is written in the
-- transaction of its cause, so it exists if and only if its cause does.
--
-- A reader that remembered the largest id would miss the event of a transaction that was still open then. So
-- the feed is in the order (tx, id), and a reader sees only transactions below pg_snapshot_xmin: all of them
-- have ended, and no event can appear among them any more.

CREATE OR REPLACE FUNCTION earmark.emit(p_type text, p_tenant text, p_scopes text[], p_budget_id text, p_reservation_id text,
    p_window_start timestamptz, p_data jsonb) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO earmark.events (type, tenant, scopes, budget_id, reservation_id, window_start, data)
    VALUES (p_type, p_tenant, p_scopes, p_budget_id, p_reservation_id, p_window_start, p_data);
END $$;

-- An event as everybody reads it.
CREATE OR REPLACE FUNCTION earmark.event_json(e earmark.events) RETURNS jsonb LANGUAGE sql STABLE AS $$
    SELECT jsonb_build_object('id', 'evt_' || e.tx || '_' || e.id, 'type', e.type, 'created_at', e.created_at, 'scopes', e.scopes,
        'budget_id', coalesce(e.budget_id, ''), 'reservation_id', coalesce(e.reservation_id, ''), 'window_start', e.window_start, 'data', e.data)
$$;

-- Writes an event of a reservation as r has it. p_data says what this kind of event adds.
CREATE OR REPLACE FUNCTION earmark.emit_reservation(p_type text, r earmark.reservations, p_data jsonb DEFAULT '{}') RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
    PERFORM earmark.emit(p_type, r.tenant, r.scopes, NULL, r.id, NULL,
        jsonb_build_object('state', r.state, 'amounts', r.amounts, 'usage', r.usage, 'reason', r.reason, 'created_at', r.created_at) || p_data);
END $$;

-- How long after an event reservation.denied the next one of the same budget is written.
CREATE OR REPLACE FUNCTION earmark.denial_pause() RETURNS interval LANGUAGE sql IMMUTABLE AS $$ SELECT interval '1 minute' $$;

-- Counts denials: a denial itself only reads. p_denials has for each budget the number of denials and the last
-- one: {budget_id, window_start, count, scopes, requested, limit, available}. Writes reservation.denied at most
-- once a minute and budget, with the count since the last one; and budget.exhausted once a window, for a request
-- that the whole limit has room for or when nothing is left. Returns after how many milliseconds counts are due
-- that wait for their minute; null if none wait. It may be called with none, to write what is due.
CREATE OR REPLACE FUNCTION earmark.count_denials(p_tenant text, p_denials jsonb) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET lock_timeout = '1s' AS $$
DECLARE
    c        record;
    b        earmark.budgets;
    d        earmark.denials;
    v_window timestamptz;
    v_now    timestamptz := clock_timestamp();
BEGIN
    PERFORM pg_advisory_xact_lock(hashtextextended('earmark.count_denials ' || p_tenant, 0)); -- one after the other, so that none waits for the other's rows
    FOR c IN SELECT * FROM jsonb_to_recordset(p_denials) AS x (budget_id text, count bigint, requested bigint, "limit" bigint, available bigint)
             ORDER BY budget_id LOOP
        SELECT * INTO b FROM earmark.budgets WHERE tenant = p_tenant AND id = c.budget_id;
        CONTINUE WHEN NOT FOUND;
        b := earmark.followed(b, v_now);
        SELECT window_start INTO v_window FROM earmark.window_at(b, v_now);
        INSERT INTO earmark.denials AS x (budget_id, pending) VALUES (b.id, c.count)
        ON CONFLICT (budget_id) DO UPDATE SET pending = x.pending + excluded.pending RETURNING * INTO d;
        IF d.exhausted_in IS DISTINCT FROM v_window AND (c.requested <= c."limit" OR c.available <= 0) THEN -- mutation: exhausted-once
            UPDATE earmark.denials SET exhausted_in = v_window WHERE budget_id = b.id;
            PERFORM earmark.emit('budget.exhausted', b.tenant, ARRAY [b.scope], b.id, NULL, v_window,
                jsonb_build_object('unit', b.unit, 'limit', b.limit_amount, 'available', c.available, 'requested', c.requested));
        END IF;
    END LOOP;
    FOR d IN SELECT x.* FROM earmark.denials x JOIN earmark.budgets y ON y.id = x.budget_id
             WHERE y.tenant = p_tenant AND x.pending > 0 AND coalesce(x.emitted_at <= v_now - earmark.denial_pause(), true) -- mutation: denials-sampled
             ORDER BY x.budget_id FOR NO KEY UPDATE OF x LOOP
        SELECT * INTO b FROM earmark.budgets WHERE id = d.budget_id;
        b := earmark.followed(b, v_now);
        SELECT window_start INTO v_window FROM earmark.window_at(b, v_now);
        PERFORM earmark.emit('reservation.denied', b.tenant, ARRAY [b.scope], b.id, NULL, v_window,
            jsonb_build_object('unit', b.unit, 'limit', b.limit_amount, 'count', d.pending));
        UPDATE earmark.denials SET pending = 0, emitted_at = v_now WHERE budget_id = d.budget_id;
    END LOOP;
    RETURN (SELECT ceil(extract(epoch FROM min(x.emitted_at) + earmark.denial_pause() - v_now) * 1000)::bigint
            FROM earmark.denials x JOIN earmark.budgets y ON y.id = x.budget_id WHERE y.tenant = p_tenant AND x.pending > 0);
END $$;

-- Removes up to p_max events that are older than p_keep_ms, oldest first, and returns how many.
CREATE OR REPLACE FUNCTION earmark.prune_events(p_keep_ms bigint, p_max integer) RETURNS bigint
LANGUAGE plpgsql SET lock_timeout = '1s' AS $$
DECLARE
    v_before timestamptz := clock_timestamp() - p_keep_ms * interval '1 millisecond';
    v_gone   bigint;
BEGIN
    DELETE FROM earmark.events WHERE id IN (SELECT id FROM earmark.events WHERE created_at < v_before ORDER BY created_at LIMIT p_max);
    GET DIAGNOSTICS v_gone = ROW_COUNT;
    RETURN v_gone;
END $$;
