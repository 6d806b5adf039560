-- Corrections: a charge that turned out to be wrong after it was final.

-- Adds p_amounts, which are signed, to the final charge of a reservation or of usage without one. The
-- correction changes the windows that were charged, also if they have ended (R7). A positive amount is
-- charged in full whatever the limits are, as late usage is: the money is gone. A negative amount gives back:
-- afterwards no budget counts more than the corrected usage, which is at least 0. p_correction_id
-- names the correction, so that it applies once (R5).
CREATE OR REPLACE FUNCTION earmark.correct(p_tenant text, p_id text, p_correction_id text, p_hash text, p_amounts jsonb, p_actor text, p_reason text) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET lock_timeout = '1s' AS $$
DECLARE
    c_max       CONSTANT numeric := 9223372036854775807;
    r           earmark.reservations := earmark.lock_reservation(p_tenant, p_id);
    s           earmark.reservation_budgets;
    v_granted   text[];
    v_hash      text;
    v_unit      text;
    v_used      numeric;
    v_over      numeric;
    v_delta     bigint;
    v_corrected jsonb := '{}'; -- the usage with all corrections
    v_overage   jsonb;
    v_shortfall jsonb;
BEGIN
    IF r.id IS NULL THEN
        RETURN jsonb_build_object('outcome', 'unknown');
    END IF;
    SELECT request_hash INTO v_hash FROM earmark.corrections WHERE reservation_id = r.id AND id = p_correction_id;
    IF v_hash = p_hash THEN -- mutation: corrected-once
        RETURN earmark.result('same', r);
    ELSIF v_hash IS NOT NULL THEN
        RETURN jsonb_build_object('outcome', 'mismatch');
    ELSIF NOT r.amounts ?& earmark.units(p_amounts) THEN
        SELECT unit INTO v_unit FROM unnest(earmark.units(p_amounts)) AS unit WHERE NOT r.amounts ? unit ORDER BY unit LIMIT 1;
        RETURN earmark.result('units_mismatch', r) || jsonb_build_object('subject', v_unit);
    ELSIF r.state <> 'committed' OR r.estimated THEN -- mutation: corrects-final-charges
        RETURN earmark.result('conflict', r);
    END IF;

    FOREACH v_unit IN ARRAY earmark.units(r.usage) LOOP
        v_used := (r.usage ->> v_unit)::numeric + coalesce((r.correction ->> v_unit)::numeric, 0) + coalesce((p_amounts ->> v_unit)::numeric, 0);
        IF v_used < 0 THEN -- mutation: corrected-from-zero
            RETURN earmark.result('below_zero', r) || jsonb_build_object('subject', v_unit);
        ELSIF v_used > c_max THEN
            RETURN jsonb_build_object('outcome', 'overflow', 'subject', v_unit);
        END IF;
        v_corrected := v_corrected || jsonb_build_object(v_unit, v_used);
        v_over := v_used - (r.amounts ->> v_unit)::numeric;
        IF v_over > 0 THEN
            v_overage := coalesce(v_overage, '{}') || jsonb_build_object(v_unit, v_over);
        END IF;
    END LOOP;

    v_granted := earmark.lock_granted(ARRAY [r.id]);
    FOR s IN SELECT * FROM earmark.reservation_budgets WHERE reservation_id = r.id ORDER BY budget_id, window_start LOOP
        v_used := (v_corrected ->> s.unit)::numeric;
        IF p_amounts ? s.unit THEN
            v_delta := (p_amounts ->> s.unit)::bigint;
            IF v_delta < 0 THEN -- a budget that an overage policy charged less has less to give back
                v_delta := least(s.committed, v_used) - s.committed;
            END IF;
            PERFORM earmark.post(p_kind => 'correction', p_tenant => r.tenant, p_reservation_id => r.id, p_budget_id => s.budget_id, p_window_start => s.window_start, -- mutation: corrects-own-window
                p_reserved_delta => 0, p_committed_delta => v_delta, p_actor => p_actor, p_reason => p_reason);
            IF s.budget_id = ANY (v_granted) THEN
                PERFORM earmark.settle_grants(s, s.committed + v_delta, 0, p_actor);
            END IF;
            s.committed := s.committed + v_delta;
        END IF;
        IF s.committed < v_used THEN -- with several budgets, the largest part that one of them did not charge
            v_shortfall := coalesce(v_shortfall, '{}') || jsonb_build_object(s.unit, greatest(v_used - s.committed, (v_shortfall ->> s.unit)::numeric));
        END IF;
    END LOOP;

    INSERT INTO earmark.corrections (reservation_id, id, request_hash, amounts) VALUES (r.id, p_correction_id, p_hash, p_amounts);
    FOREACH v_unit IN ARRAY earmark.units(p_amounts) LOOP
        r.correction := coalesce(r.correction, '{}')
            || jsonb_build_object(v_unit, coalesce((r.correction ->> v_unit)::numeric, 0) + (p_amounts ->> v_unit)::numeric);
    END LOOP;
    -- settled_at: earmark.prune keeps a correction as long as late usage.
    UPDATE earmark.reservations SET correction = r.correction, overage = v_overage, shortfall = v_shortfall, settled_at = clock_timestamp()
    WHERE id = r.id RETURNING * INTO r;
    PERFORM earmark.emit_reservation('reservation.corrected', r, jsonb_build_object('correction_id', p_correction_id, 'amounts', p_amounts,
        'correction', r.correction, 'reason', p_reason));
    RETURN earmark.result('applied', r);
END $$;
