-- Commit: charges the usage and gives back the rest.

DROP FUNCTION IF EXISTS earmark.commit(text, text, jsonb, text, text, text); -- without p_estimated: calls would be ambiguous
DROP FUNCTION IF EXISTS earmark.commit(text, text, jsonb, text, text, text, boolean); -- without p_response

-- Charges p_usage and gives back the rest of the held amount. Usage that arrives
-- after an expiry is late: it is charged in full whatever the overage policies say,
-- because the money is gone. The first real usage corrects an estimate, be it of the
-- expiry or, with p_estimated, of the caller; no estimate replaces another. A commit
-- that was refused stays refused: p_attempt names one attempt of a caller, which may
-- arrive twice; a new attempt is a new decision. p_response is the response from which
-- the usage was computed, if it was.
CREATE OR REPLACE FUNCTION earmark.commit(p_tenant text, p_id text, p_usage jsonb, p_actor text, p_reason text, p_attempt text DEFAULT '',
    p_estimated boolean DEFAULT false, p_response jsonb DEFAULT NULL) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET lock_timeout = '1s' SET plan_cache_mode = 'force_generic_plan' SET enable_seqscan = off AS $$
DECLARE
    c_attempts  CONSTANT integer := 20; -- only the last 20 are kept
    r           earmark.reservations := earmark.lock_reservation(p_tenant, p_id);
    s           earmark.reservation_budgets;
    c           record; -- of its budget
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
    v_granted   text[] := '{}'; -- budgets with grants, locked
    v_kind      text := CASE WHEN p_estimated THEN 'estimate' ELSE 'commit' END;
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

    IF r.state = 'committed' AND (p_estimated OR NOT r.estimated) THEN -- mutation: committed-once
        RETURN earmark.result(CASE WHEN r.usage = p_usage THEN 'same' ELSE 'conflict' END, r);
    ELSIF r.state = 'released' THEN -- mutation: only-released-refuses
        v_reason := format('usage %s came after the release and was not charged', p_usage);
        IF NOT EXISTS (SELECT 1 FROM earmark.entries WHERE reservation_id = r.id AND kind = 'refuse' AND reason = v_reason) THEN
            PERFORM earmark.note('refuse', r.tenant, r.id, NULL, p_actor, v_reason);
        END IF;
        RETURN earmark.result('conflict', r);
    ELSIF p_attempt = ANY (r.refused_attempts) THEN -- mutation: refused-attempt
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

    -- Usage within the reserved amount, and late usage: charged in full, whatever the overage policies say.
    IF v_overage IS NULL OR v_late THEN -- mutation: late-usage
        IF r.granted OR v_late THEN
            v_granted := earmark.lock_granted(ARRAY [r.id]);
        END IF;
        FOR s IN SELECT * FROM earmark.reservation_budgets WHERE reservation_id = r.id ORDER BY budget_id, window_start LOOP
            PERFORM earmark.post(p_kind => v_kind, p_tenant => r.tenant, p_reservation_id => r.id, p_budget_id => s.budget_id, p_window_start => s.window_start, -- mutation: own-window
                p_reserved_delta => CASE WHEN r.state IN ('held', 'review') THEN -s.reserved ELSE 0 END,
                p_committed_delta => (p_usage ->> s.unit)::bigint - s.committed, p_actor => p_actor, p_reason => v_reason);
            IF s.budget_id = ANY (v_granted) THEN
                PERFORM earmark.settle_grants(s, (p_usage ->> s.unit)::bigint, CASE WHEN r.state IN ('held', 'review') THEN s.reserved ELSE 0 END, p_actor);
            END IF;
        END LOOP;
    ELSE
        -- An overage policy decides. It reads limits and balances, so it needs their locks.
        PERFORM 1 FROM earmark.budgets b
        WHERE b.id IN (SELECT budget_id FROM earmark.reservation_budgets WHERE reservation_id = r.id)
        ORDER BY b.id FOR NO KEY UPDATE;
        IF EXISTS (SELECT 1 FROM earmark.reservation_budgets x JOIN earmark.budgets y ON y.id = x.budget_id CROSS JOIN LATERAL earmark.followed(y, clock_timestamp()) b
                   WHERE x.reservation_id = r.id AND b.overage = 'reject' AND v_overage ? x.unit) THEN
            IF r.rejected_usage IS DISTINCT FROM p_usage THEN
                UPDATE earmark.reservations SET rejected_usage = p_usage, on_expiry = 'review' WHERE id = r.id RETURNING * INTO r;
                PERFORM earmark.note('reject', r.tenant, r.id, NULL, p_actor, format('usage %s is over the reserved amount', p_usage));
                PERFORM earmark.emit_reservation('reservation.overage', r,
                    jsonb_build_object('usage', p_usage, 'overage', v_overage, 'shortfall', NULL, 'rejected', true));
            END IF;
            IF p_attempt <> '' THEN
                UPDATE earmark.reservations
                SET refused_attempts = (ARRAY [p_attempt] || refused_attempts)[1:c_attempts] WHERE id = r.id;
            END IF;
            RETURN earmark.result('overage_rejected', r);
        END IF;
        v_granted := earmark.lock_granted(ARRAY [r.id]);
        PERFORM 1 FROM earmark.windows w JOIN earmark.reservation_budgets x USING (budget_id, window_start)
        WHERE x.reservation_id = r.id ORDER BY w.budget_id, w.window_start FOR NO KEY UPDATE OF w;
        FOR s IN SELECT * FROM earmark.reservation_budgets WHERE reservation_id = r.id ORDER BY budget_id, window_start LOOP
            SELECT earmark.add_granted(CASE b.enforcement WHEN 'hard' THEN b.limit_amount ELSE b.soft_ceiling END, g.reserved, g.committed, g.remaining) AS ceiling,
                   b.overage, w.reserved, w.committed
            INTO c
            FROM earmark.budgets y JOIN earmark.windows w ON w.budget_id = y.id AND w.window_start = s.window_start
                 CROSS JOIN LATERAL (SELECT least(clock_timestamp(), w.window_end - interval '1 microsecond') AS at) m -- a window keeps what was in force at its end
                 CROSS JOIN LATERAL earmark.in_force(y, m.at) b CROSS JOIN LATERAL earmark.granted_at(y, w.window_start, m.at) g
            WHERE y.id = s.budget_id;
            v_used := (p_usage ->> s.unit)::bigint;
            v_charged := v_used;
            IF v_used > s.reserved AND c.overage = 'allow_if_available' AND c.ceiling IS NOT NULL THEN
                -- Room in the budget beyond the reservation's own amount, which the window
                -- still counts as reserved.
                v_charged := s.reserved + least(v_used - s.reserved, greatest(0, c.ceiling::numeric - c.reserved - c.committed
                    - earmark.held_elsewhere(s.budget_id, s.window_start))); -- mutation: overage-elsewhere
            END IF;
            IF v_charged < v_used THEN -- with several budgets, the largest part that one of them did not charge
                v_shortfall := coalesce(v_shortfall, '{}') || jsonb_build_object(s.unit, greatest(v_used - v_charged, (v_shortfall ->> s.unit)::bigint));
            END IF;
            PERFORM earmark.post(p_kind => v_kind, p_tenant => r.tenant, p_reservation_id => r.id, p_budget_id => s.budget_id, p_window_start => s.window_start,
                p_reserved_delta => -s.reserved, p_committed_delta => v_charged - s.committed, p_actor => p_actor, p_reason => v_reason);
            IF s.budget_id = ANY (v_granted) THEN
                PERFORM earmark.settle_grants(s, v_charged, s.reserved, p_actor);
            END IF;
        END LOOP;
    END IF;
    UPDATE earmark.reservations SET state = 'committed', usage = p_usage, overage = v_overage, shortfall = v_shortfall, late = v_late,
        estimated = p_estimated, response = p_response, settled_at = clock_timestamp(), reason = v_reason, orphan = false,
        -- In review the workflow has no timer that would read the ledger again.
        refresh_due = r.refresh_due OR r.state = 'review' -- mutation: refresh-after-review
    WHERE id = r.id RETURNING * INTO r;
    IF v_late THEN
        PERFORM earmark.emit_reservation('reservation.committed_late', r);
    END IF;
    IF v_overage IS NOT NULL THEN
        PERFORM earmark.emit_reservation('reservation.overage', r, jsonb_build_object('overage', v_overage, 'shortfall', v_shortfall, 'rejected', false));
    END IF;
    RETURN earmark.result('applied', r);
END $$;

-- Whether p_usage is at most p_amounts in every unit; null if there are no amounts.
CREATE OR REPLACE FUNCTION earmark.is_within(p_usage jsonb, p_amounts jsonb) RETURNS boolean LANGUAGE plpgsql IMMUTABLE AS $$
DECLARE
    v_unit text;
BEGIN
    FOREACH v_unit IN ARRAY earmark.units(p_usage) LOOP
        IF (p_usage ->> v_unit)::numeric > (p_amounts ->> v_unit)::numeric THEN
            RETURN false;
        END IF;
    END LOOP;
    RETURN p_amounts IS NOT NULL;
END $$;

-- Records, once, that earmark.commit was rolled back because a sum would exceed int64 (R8):
-- the usage was not charged.
CREATE OR REPLACE FUNCTION earmark.refuse_overflow(p_tenant text, p_id text, p_usage jsonb, p_actor text) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET lock_timeout = '1s' AS $$
DECLARE
    r        earmark.reservations := earmark.lock_reservation(p_tenant, p_id);
    v_reason text := format('usage %s would make a sum larger than 9223372036854775807 and was not charged', p_usage);
BEGIN
    IF r.id IS NULL THEN
        RETURN jsonb_build_object('outcome', 'unknown');
    ELSIF NOT EXISTS (SELECT 1 FROM earmark.entries WHERE reservation_id = r.id AND kind = 'refuse' AND reason = v_reason) THEN
        PERFORM earmark.note('refuse', r.tenant, r.id, NULL, p_actor, v_reason);
    END IF;
    RETURN jsonb_build_object('outcome', 'overflow');
END $$;

-- Commits several calls in one transaction; the result of each is that of earmark.commit.
-- It takes all locks first, in order (R6), and so accepts only usage within the reserved
-- amount: an overage policy would need budget locks, which come before window locks. It
-- waits for no reservation row. If another session has locked one, the answer is null, and
-- the caller makes that call alone.
CREATE OR REPLACE FUNCTION earmark.commit_batch(p_calls jsonb) RETURNS SETOF jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET lock_timeout = '1s' SET plan_cache_mode = 'force_generic_plan' SET enable_seqscan = off AS $$
DECLARE
    c         record;
    s         record;
    r         record;
    v_ids     text[] := '{}';
    v_amounts jsonb := '{}'; -- of each locked reservation, by its id
BEGIN
    PERFORM earmark.require_read_committed();
    FOR c IN SELECT * FROM jsonb_to_recordset(p_calls) AS x (id text) LOOP
        v_ids := v_ids || c.id;
    END LOOP;
    FOR r IN SELECT id, amounts FROM earmark.reservations WHERE id = ANY (v_ids) ORDER BY id FOR NO KEY UPDATE SKIP LOCKED LOOP
        v_amounts := v_amounts || jsonb_build_object(r.id, r.amounts);
    END LOOP;
    v_ids := ARRAY (SELECT jsonb_object_keys(v_amounts));
    IF EXISTS (SELECT 1 FROM earmark.reservations WHERE id = ANY (v_ids) AND granted) THEN
        PERFORM earmark.lock_granted(v_ids);
    END IF;
    FOR s IN SELECT DISTINCT budget_id, window_start FROM earmark.reservation_budgets WHERE reservation_id = ANY (v_ids) ORDER BY 1, 2 LOOP
        PERFORM 1 FROM earmark.windows WHERE budget_id = s.budget_id AND window_start = s.window_start FOR NO KEY UPDATE;
    END LOOP;
    FOR c IN SELECT * FROM jsonb_to_recordset(p_calls) AS x (tenant text, id text, usage jsonb, actor text, reason text, attempt text, estimated boolean, response jsonb) LOOP
        RETURN NEXT CASE WHEN earmark.is_within(c.usage, v_amounts -> c.id) THEN -- mutation: batch-within-reserved
            earmark.commit(c.tenant, c.id, c.usage, c.actor, c.reason, coalesce(c.attempt, ''), coalesce(c.estimated, false), c.response) END;
    END LOOP;
END $$;
