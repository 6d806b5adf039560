-- Usage without a reservation. Late usage of a reservation is in commit.sql.

DROP FUNCTION IF EXISTS earmark.charge(text, text, text, text[], jsonb, jsonb, timestamptz, text, text); -- without p_response: calls would be ambiguous
DROP FUNCTION IF EXISTS earmark.charge(text, text, text, text[], jsonb, jsonb, timestamptz, text, text, jsonb); -- without p_require_budget

-- Charges p_amounts without a reservation, whatever the limits are, and records them as a
-- committed reservation. p_at (null: now) selects the windows. p_response is the response
-- from which the amounts were computed, if they were. p_require_budget: each scope needs a
-- budget of its own.
CREATE OR REPLACE FUNCTION earmark.charge(p_id text, p_tenant text, p_hash text, p_scopes text[], p_amounts jsonb, p_metadata jsonb,
    p_at timestamptz, p_actor text, p_reason text, p_response jsonb DEFAULT NULL, p_require_budget boolean DEFAULT false) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET lock_timeout = '1s' AS $$
DECLARE
    t         earmark.affected_budget;
    s         earmark.reservation_budgets;
    r         earmark.reservations;
    v_affected earmark.affected_budget[];
    v_answer  jsonb;
    v_now     timestamptz := clock_timestamp(); -- one moment, however long the call waits for locks
BEGIN
    v_answer := earmark.existing_result(p_id, p_tenant, p_hash);
    IF v_answer IS NOT NULL THEN
        RETURN v_answer;
    END IF;
    v_affected := earmark.lock_affected(p_tenant, p_scopes, p_amounts, coalesce(p_at, v_now), p_actor => p_actor);
    v_answer := coalesce(earmark.existing_result(p_id, p_tenant, p_hash),
                         earmark.check_coverage(p_tenant, p_scopes, earmark.units(p_amounts), v_affected, true, p_require_budget));
    IF v_answer IS NOT NULL THEN
        RETURN v_answer;
    END IF;
    INSERT INTO earmark.reservations (id, tenant, state, request_hash, scopes, amounts, usage, on_expiry, metadata, created_at, settled_at, reason, response)
    VALUES (p_id, p_tenant, 'committed', p_hash, p_scopes, p_amounts, p_amounts, 'release', p_metadata, v_now, clock_timestamp(), p_reason, p_response)
    ON CONFLICT DO NOTHING RETURNING * INTO r;
    IF NOT FOUND THEN
        RETURN earmark.existing_result(p_id, p_tenant, p_hash);
    END IF;
    FOREACH t IN ARRAY v_affected LOOP
        PERFORM earmark.post(p_kind => 'charge', p_tenant => p_tenant, p_reservation_id => p_id, p_budget_id => t.budget_id, p_window_start => t.window_start,
            p_reserved_delta => 0, p_committed_delta => (p_amounts ->> t.unit)::bigint, p_actor => p_actor, p_reason => p_reason, p_unit => t.unit);
        IF t.grants_left IS NOT NULL THEN
            SELECT * INTO s FROM earmark.reservation_budgets WHERE reservation_id = p_id AND budget_id = t.budget_id;
            s.committed := 0; -- before the charge
            PERFORM earmark.settle_grants(s, (p_amounts ->> t.unit)::bigint, 0, p_actor, coalesce(p_at, v_now));
        END IF;
    END LOOP;
    RETURN earmark.result('applied', r);
END $$;
