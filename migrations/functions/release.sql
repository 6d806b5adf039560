-- Release: gives the whole amount back.

-- Gives back what an open reservation holds, in the order of locks, and sets its state to
-- p_state. The reconciler notifies a workflow in review (refresh_due); any other workflow
-- has a timer, and the actor that settles notifies it.
CREATE OR REPLACE FUNCTION earmark.give_back(r earmark.reservations, p_state text, p_kind text, p_actor text, p_reason text) RETURNS earmark.reservations
LANGUAGE plpgsql AS $$
DECLARE
    s         earmark.reservation_budgets;
    v_granted text[] := CASE WHEN r.granted THEN earmark.lock_granted(ARRAY [r.id]) ELSE '{}' END;
BEGIN
    FOR s IN SELECT * FROM earmark.reservation_budgets WHERE reservation_id = r.id ORDER BY budget_id, window_start LOOP
        PERFORM earmark.post(p_kind => p_kind, p_tenant => r.tenant, p_reservation_id => r.id, p_budget_id => s.budget_id, p_window_start => s.window_start,
            p_reserved_delta => -s.reserved, p_committed_delta => 0, p_actor => p_actor, p_reason => p_reason);
        IF s.budget_id = ANY (v_granted) THEN
            PERFORM earmark.settle_grants(s, 0, s.reserved, p_actor);
        END IF;
    END LOOP;
    UPDATE earmark.reservations SET state = p_state, settled_at = clock_timestamp(), reason = p_reason, orphan = false,
        refresh_due = r.refresh_due OR r.state = 'review' -- in review the workflow has no timer that would read the ledger again
    WHERE id = r.id RETURNING * INTO r;
    IF p_state = 'expired' THEN
        PERFORM earmark.emit_reservation('reservation.expired', r);
    END IF;
    RETURN r;
END $$;

-- Gives back the held amount. The caller's own release (p_final) says that nothing was
-- spent, and is final. A release by anyone else is an expiry with a reason: usage that
-- arrives later is still charged.
CREATE OR REPLACE FUNCTION earmark.release(p_tenant text, p_id text, p_final boolean, p_actor text, p_reason text) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET lock_timeout = '1s' SET plan_cache_mode = 'force_generic_plan' SET enable_seqscan = off AS $$
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
