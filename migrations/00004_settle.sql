-- +goose Up
-- From held onwards: commit, release, expire, extend, and charges without a reservation.

-- +goose StatementBegin
-- Locks a reservation's row. All transitions begin here (R6).
CREATE FUNCTION earmark.lock_reservation(p_tenant text, p_id text) RETURNS earmark.reservations LANGUAGE plpgsql AS $$
DECLARE
    r earmark.reservations;
BEGIN
    PERFORM earmark.require_read_committed();
    SELECT * INTO r FROM earmark.reservations WHERE id = p_id AND tenant = p_tenant FOR NO KEY UPDATE;
    RETURN r;
END $$;
-- +goose StatementEnd

-- +goose StatementBegin
-- Gives back what an open reservation holds, in the order of locks, and moves it
-- to p_state. The workflow is told later when somebody else did this (refresh_due).
CREATE FUNCTION earmark.give_back(r earmark.reservations, p_state text, p_kind text, p_actor text, p_reason text) RETURNS earmark.reservations
LANGUAGE plpgsql AS $$
DECLARE
    s earmark.reservation_budgets;
BEGIN
    FOR s IN SELECT * FROM earmark.reservation_budgets WHERE reservation_id = r.id ORDER BY budget_id, window_start LOOP
        PERFORM earmark.post(p_kind, r.tenant, r.id, s.budget_id, s.window_start, -s.reserved, 0, NULL, p_actor, p_reason);
    END LOOP;
    UPDATE earmark.reservations SET state = p_state, settled_at = clock_timestamp(), reason = p_reason, orphan = false,
        refresh_due = p_actor <> 'workflow'
    WHERE id = r.id RETURNING * INTO r;
    RETURN r;
END $$;
-- +goose StatementEnd

-- +goose StatementBegin
-- Applies the expiry policy of a held reservation whose row is locked.
CREATE FUNCTION earmark.apply_expiry(r earmark.reservations, p_actor text, p_reason text) RETURNS earmark.reservations
LANGUAGE plpgsql AS $$
DECLARE
    s earmark.reservation_budgets;
BEGIN
    IF r.on_expiry = 'release' THEN
        RETURN earmark.give_back(r, 'expired', 'expire', p_actor, p_reason);
    ELSIF r.on_expiry = 'review' THEN
        PERFORM earmark.note('review', r.tenant, r.id, NULL, p_actor, p_reason);
        UPDATE earmark.reservations SET state = 'review', reason = p_reason WHERE id = r.id RETURNING * INTO r;
        RETURN r;
    END IF;
    FOR s IN SELECT * FROM earmark.reservation_budgets WHERE reservation_id = r.id ORDER BY budget_id, window_start LOOP
        PERFORM earmark.post('expire', r.tenant, r.id, s.budget_id, s.window_start, -s.reserved, s.reserved, NULL, p_actor, p_reason);
    END LOOP;
    UPDATE earmark.reservation_budgets SET committed = reserved WHERE reservation_id = r.id;
    UPDATE earmark.reservations SET state = 'committed', usage = amounts, estimated = true, settled_at = clock_timestamp(), reason = p_reason,
        orphan = false, refresh_due = p_actor <> 'workflow'
    WHERE id = r.id RETURNING * INTO r;
    RETURN r;
END $$;
-- +goose StatementEnd

-- +goose StatementBegin
-- Expires a held reservation that is due.
CREATE FUNCTION earmark.expire(p_tenant text, p_id text, p_actor text, p_reason text) RETURNS jsonb
LANGUAGE plpgsql SET lock_timeout = '1s' AS $$
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
    r := earmark.apply_expiry(r, p_actor, p_reason); -- a statement of its own, for the answer to see what it changed
    RETURN earmark.result('applied', r);
END $$;
-- +goose StatementEnd

-- +goose StatementBegin
-- Expires up to p_most reservations that are overdue by more than p_grace_ms, and
-- returns their ids. Rows that somebody else works on are left to them; windows
-- are locked in order for all of them together, so no deadlock can arise (R6).
CREATE FUNCTION earmark.sweep(p_grace_ms bigint, p_most integer, p_actor text, p_reason text) RETURNS text[]
LANGUAGE plpgsql SET lock_timeout = '1s' AS $$
DECLARE
    r     earmark.reservations;
    v_ids text[];
BEGIN
    PERFORM earmark.require_read_committed();
    SELECT array_agg(id) INTO v_ids FROM (
        SELECT id FROM earmark.reservations
        WHERE state = 'held' AND expires_at < clock_timestamp() - p_grace_ms * interval '1 millisecond'
        ORDER BY expires_at, id LIMIT p_most FOR NO KEY UPDATE SKIP LOCKED
    ) AS overdue;
    PERFORM 1 FROM earmark.windows w
    WHERE (w.budget_id, w.window_start) IN (SELECT s.budget_id, s.window_start FROM earmark.reservation_budgets s WHERE s.reservation_id = ANY (v_ids))
    ORDER BY w.budget_id, w.window_start FOR NO KEY UPDATE;
    FOR r IN SELECT * FROM earmark.reservations WHERE id = ANY (v_ids) ORDER BY expires_at, id LOOP
        PERFORM earmark.apply_expiry(r, p_actor, p_reason);
    END LOOP;
    RETURN coalesce(v_ids, '{}');
END $$;
-- +goose StatementEnd

-- +goose StatementBegin
-- Gives back what is held. The caller's own release (p_final) says that nothing
-- was spent and is the end; anybody else's is an expiry with a reason, and usage
-- that turns up later is still charged.
CREATE FUNCTION earmark.release(p_tenant text, p_id text, p_final boolean, p_actor text, p_reason text) RETURNS jsonb
LANGUAGE plpgsql SET lock_timeout = '1s' AS $$
DECLARE
    r earmark.reservations := earmark.lock_reservation(p_tenant, p_id);
BEGIN
    IF r.id IS NULL THEN
        RETURN jsonb_build_object('outcome', 'unknown');
    ELSIF r.state = 'committed' THEN
        RETURN earmark.result('conflict', r);
    ELSIF r.state NOT IN ('held', 'review') THEN
        RETURN earmark.result('same', r);
    ELSIF p_final THEN
        RETURN earmark.result('applied', earmark.give_back(r, 'released', 'release', p_actor, p_reason));
    END IF;
    RETURN earmark.result('applied', earmark.give_back(r, 'expired', 'expire', p_actor, p_reason));
END $$;
-- +goose StatementEnd

-- +goose StatementBegin
-- Lets a held reservation's lease run for p_ttl_ms from now, if that is longer
-- than it runs already, and to seven days after its creation at the most.
CREATE FUNCTION earmark.extend(p_tenant text, p_id text, p_ttl_ms bigint, p_actor text) RETURNS jsonb
LANGUAGE plpgsql SET lock_timeout = '1s' AS $$
DECLARE
    c_longest CONSTANT interval := '168 hours'; -- '7 days' would be an hour off where the session's time zone changes its clocks
    r         earmark.reservations := earmark.lock_reservation(p_tenant, p_id);
    v_expires timestamptz;
BEGIN
    IF r.id IS NULL THEN
        RETURN jsonb_build_object('outcome', 'unknown');
    ELSIF r.state IN ('expired', 'review') THEN
        RETURN earmark.result('expired', r);
    ELSIF r.state <> 'held' THEN
        RETURN earmark.result('conflict', r);
    END IF;
    v_expires := greatest(r.expires_at, least(clock_timestamp() + p_ttl_ms * interval '1 millisecond', r.created_at + c_longest));
    IF v_expires = r.expires_at THEN
        RETURN earmark.result('same', r);
    END IF;
    UPDATE earmark.reservations SET expires_at = v_expires WHERE id = r.id RETURNING * INTO r;
    PERFORM earmark.note('extend', r.tenant, r.id, NULL, p_actor, 'expires at ' || to_char(v_expires AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"'));
    RETURN earmark.result('applied', r);
END $$;
-- +goose StatementEnd

-- +goose StatementBegin
-- Charges p_usage and gives back the rest of what is held. Usage that turns up
-- after an expiry is late: it is charged in full whatever the policies say, since
-- the money is gone. Estimates are corrected by the first real usage.
CREATE FUNCTION earmark.commit(p_tenant text, p_id text, p_usage jsonb, p_actor text, p_reason text) RETURNS jsonb
LANGUAGE plpgsql SET lock_timeout = '1s' AS $$
DECLARE
    r           earmark.reservations := earmark.lock_reservation(p_tenant, p_id);
    s           record;
    v_late      boolean;
    v_overage   jsonb;
    v_shortfall jsonb;
    v_used      bigint;
    v_charged   bigint;
    v_subject   text;
    v_reason    text;
BEGIN
    IF r.id IS NULL THEN
        RETURN jsonb_build_object('outcome', 'unknown');
    END IF;
    SELECT unit INTO v_subject FROM unnest(earmark.units(p_usage) || earmark.units(r.amounts)) AS unit
    WHERE NOT (p_usage ? unit AND r.amounts ? unit) ORDER BY unit LIMIT 1;
    IF FOUND THEN
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
    END IF;

    v_late := r.state <> 'held';
    SELECT jsonb_object_agg(unit, used - reserved) INTO v_overage
    FROM (SELECT key AS unit, value::numeric AS used, (r.amounts ->> key)::numeric AS reserved FROM jsonb_each_text(p_usage)) AS u
    WHERE used > reserved;

    IF v_overage IS NOT NULL AND NOT v_late THEN
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
            RETURN earmark.result('overage_rejected', r);
        END IF;
        PERFORM 1 FROM earmark.windows w JOIN earmark.reservation_budgets x USING (budget_id, window_start)
        WHERE x.reservation_id = r.id ORDER BY w.budget_id, w.window_start FOR NO KEY UPDATE OF w;
    END IF;

    v_reason := CASE WHEN v_late THEN concat_ws(': ', CASE WHEN r.estimated THEN 'late, corrects an estimate' ELSE 'late' END, nullif(p_reason, '')) ELSE p_reason END;
    FOR s IN
        SELECT x.*, CASE b.enforcement WHEN 'hard' THEN b.limit_amount ELSE b.soft_ceiling END AS ceiling, b.overage,
               w.reserved AS window_reserved, w.committed AS window_committed
        FROM earmark.reservation_budgets x JOIN earmark.budgets b ON b.id = x.budget_id JOIN earmark.windows w USING (budget_id, window_start)
        WHERE x.reservation_id = r.id ORDER BY x.budget_id, x.window_start
    LOOP
        v_used := (p_usage ->> s.unit)::bigint;
        v_charged := v_used;
        IF v_used > s.reserved AND NOT v_late AND s.overage = 'allow_if_available' AND s.ceiling IS NOT NULL THEN
            -- What is free beside the reservation's own amount, which the window still counts.
            v_charged := s.reserved + least(v_used - s.reserved, greatest(0, s.ceiling::numeric - s.window_reserved - s.window_committed));
        END IF;
        IF v_charged < v_used THEN -- with several budgets, the largest part that one of them did not charge
            v_shortfall := coalesce(v_shortfall, '{}') || jsonb_build_object(s.unit, greatest(v_used - v_charged, (v_shortfall ->> s.unit)::bigint));
        END IF;
        PERFORM earmark.post('commit', r.tenant, r.id, s.budget_id, s.window_start,
            CASE WHEN r.state IN ('held', 'review') THEN -s.reserved ELSE 0 END, v_charged - s.committed, NULL, p_actor, v_reason);
        UPDATE earmark.reservation_budgets SET committed = v_charged WHERE reservation_id = r.id AND budget_id = s.budget_id;
    END LOOP;
    UPDATE earmark.reservations SET state = 'committed', usage = p_usage, overage = v_overage, shortfall = v_shortfall, late = v_late,
        estimated = false, settled_at = clock_timestamp(), reason = v_reason, orphan = false,
        refresh_due = r.refresh_due OR (p_actor <> 'workflow' AND r.state IN ('held', 'review'))
    WHERE id = r.id RETURNING * INTO r;
    RETURN earmark.result('applied', r);
END $$;
-- +goose StatementEnd

-- +goose StatementBegin
-- Charges p_amounts that have no reservation, whatever the limits say, as a
-- reservation that is committed. p_at (null: now) selects the windows.
CREATE FUNCTION earmark.charge(p_id text, p_tenant text, p_hash text, p_scopes text[], p_amounts jsonb, p_metadata jsonb,
    p_at timestamptz, p_actor text, p_reason text) RETURNS jsonb
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
    v_touched := earmark.lock_touched(p_tenant, p_scopes, earmark.units(p_amounts), p_at);
    v_answer := coalesce(earmark.replay(p_id, p_tenant, p_hash), earmark.unmet(p_tenant, p_scopes, earmark.units(p_amounts), v_touched));
    IF v_answer IS NOT NULL THEN
        RETURN v_answer;
    END IF;
    INSERT INTO earmark.reservations (id, tenant, state, request_hash, scopes, amounts, usage, on_expiry, metadata, settled_at, reason)
    VALUES (p_id, p_tenant, 'committed', p_hash, p_scopes, p_amounts, p_amounts, 'release', p_metadata, clock_timestamp(), p_reason)
    ON CONFLICT DO NOTHING RETURNING * INTO r;
    IF NOT FOUND THEN
        RETURN earmark.replay(p_id, p_tenant, p_hash);
    END IF;
    FOREACH t IN ARRAY v_touched LOOP
        INSERT INTO earmark.reservation_budgets (reservation_id, budget_id, window_start, unit, reserved, committed)
        VALUES (p_id, t.budget_id, t.window_start, t.unit, 0, (p_amounts ->> t.unit)::bigint);
        PERFORM earmark.post('charge', p_tenant, p_id, t.budget_id, t.window_start, 0, (p_amounts ->> t.unit)::bigint, NULL, p_actor, p_reason);
    END LOOP;
    RETURN earmark.result('applied', r);
END $$;
-- +goose StatementEnd

-- +goose Down
DROP FUNCTION earmark.charge, earmark.commit, earmark.extend, earmark.release, earmark.sweep, earmark.expire, earmark.apply_expiry,
    earmark.give_back, earmark.lock_reservation;
