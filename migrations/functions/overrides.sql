-- Overrides: changes of a budget's limit for a time. The limit itself stays as it is.

-- A budget as it is at p_at: what its template has changed, and its limit and soft ceiling with the overrides in force, from 0 to the largest int64.
-- The caller has locked the budget if it admits by them (R6): create_override and end_override lock it too.
CREATE OR REPLACE FUNCTION earmark.in_force(b earmark.budgets, p_at timestamptz) RETURNS earmark.budgets LANGUAGE plpgsql STABLE AS $$
DECLARE
    v_by numeric; -- numeric, so that no sum overflows (R8)
BEGIN
    IF b.template_id IS NOT NULL THEN
        b := earmark.followed(b, p_at);
    END IF;
    IF b.overridden_until > p_at THEN -- the same condition as in lock_affected
        SELECT coalesce(sum(amount), 0) INTO v_by FROM earmark.overrides
        WHERE budget_id = b.id AND effective_at <= p_at AND p_at < least(expires_at, ended_at, 'infinity'); -- mutation: override-in-force
        b.limit_amount := greatest(0, least(9223372036854775807, b.limit_amount + v_by));
        IF b.soft_ceiling IS NOT NULL THEN
            b.soft_ceiling := greatest(0, least(9223372036854775807, b.soft_ceiling + v_by));
        END IF;
    END IF;
    RETURN b;
END $$;

CREATE OR REPLACE FUNCTION earmark.override_json(o earmark.overrides) RETURNS jsonb LANGUAGE plpgsql STABLE AS $$
BEGIN
    RETURN jsonb_build_object('id', o.id, 'budget_id', o.budget_id, 'source', o.source, 'amount', o.amount, 'effective_at', o.effective_at,
        'expires_at', o.expires_at, 'ended_at', o.ended_at, 'reason', o.reason, 'created_at', o.created_at);
END $$;

-- How the journal names an override.
CREATE OR REPLACE FUNCTION earmark.override_words(o earmark.overrides) RETURNS text LANGUAGE plpgsql STABLE AS $$
DECLARE
    c_form CONSTANT text := 'YYYY-MM-DD"T"HH24:MI:SS"Z"';
BEGIN
    RETURN concat_ws(' ', o.source, 'override,', CASE WHEN o.amount < 0 THEN 'limit ' ELSE 'limit +' END || o.amount,
        'from', to_char(o.effective_at AT TIME ZONE 'UTC', c_form), 'to ' || to_char(o.expires_at AT TIME ZONE 'UTC', c_form));
END $$;

-- Notes when the last override of a budget, whose row is locked, ends.
CREATE OR REPLACE FUNCTION earmark.follow_overrides(p_budget_id text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    UPDATE earmark.budgets SET overridden_until = (
        SELECT max(least(expires_at, ended_at, 'infinity')) FROM earmark.overrides WHERE budget_id = p_budget_id)
    WHERE id = p_budget_id;
END $$;

-- Overrides a budget's limit by p_amount from p_effective_at (null: now) to p_expires_at, or to the end of p_windows windows,
-- or for good. p_source 'reset' gives the window's whole limit again: the amount is what is committed there, not on grants, and no earlier
-- reset made up for, and it ends with the window. One moment, read under the locks, is now for all of it. Outcomes: applied, same, mismatch, unknown (there is no such budget), conflict (the
-- budget is archived), invalid with the field as its subject.
CREATE OR REPLACE FUNCTION earmark.create_override(p_id text, p_tenant text, p_budget_id text, p_hash text, p_source text, p_amount bigint,
    p_effective_at timestamptz, p_expires_at timestamptz, p_windows integer, p_actor text, p_reason text) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET lock_timeout = '1s' AS $$
DECLARE
    b           earmark.budgets;
    o           earmark.overrides;
    v_window    record;
    v_now       timestamptz;
    v_effective timestamptz;
    v_expires   timestamptz := p_expires_at;
    v_amount    bigint := p_amount;
BEGIN
    PERFORM earmark.require_read_committed();
    SELECT * INTO b FROM earmark.budgets WHERE tenant = p_tenant AND id = p_budget_id FOR NO KEY UPDATE;
    IF NOT FOUND THEN
        RETURN jsonb_build_object('outcome', 'unknown');
    END IF;
    SELECT * INTO o FROM earmark.overrides WHERE id = p_id;
    IF FOUND THEN -- mutation: override-once
        RETURN CASE WHEN o.request_hash = p_hash THEN jsonb_build_object('outcome', 'same', 'override', earmark.override_json(o))
                    ELSE jsonb_build_object('outcome', 'mismatch') END;
    ELSIF b.archived_at IS NOT NULL THEN
        RETURN jsonb_build_object('outcome', 'conflict', 'archived_at', b.archived_at);
    ELSIF earmark.is_template(b.scope) THEN
        RETURN jsonb_build_object('outcome', 'invalid', 'subject', 'template');
    ELSIF p_windows IS NOT NULL AND b.period IN ('lifetime', 'rolling') THEN
        RETURN jsonb_build_object('outcome', 'invalid', 'subject', 'windows');
    ELSIF p_source = 'reset' AND b.period = 'rolling' THEN
        RETURN jsonb_build_object('outcome', 'invalid', 'subject', 'window');
    END IF;

    v_now := clock_timestamp();
    IF p_source = 'reset' THEN
        LOOP
            SELECT * INTO v_window FROM earmark.window_at(b, v_now);
            v_expires := v_window.window_end;
            -- The row, if there is one, locked after the budget (R6): nothing is committed meanwhile.
            SELECT w.committed - w.granted_committed - coalesce((SELECT sum(x.amount) FROM earmark.overrides x
                                           WHERE x.budget_id = b.id AND x.source = 'reset' AND v_now < least(x.expires_at, x.ended_at, 'infinity')), 0)
            INTO v_amount FROM earmark.windows w WHERE w.budget_id = b.id AND w.window_start = v_window.window_start FOR NO KEY UPDATE OF w;
            v_amount := greatest(0, coalesce(v_amount, 0));
            v_now := clock_timestamp();
            EXIT WHEN (v_expires <= v_now) IS NOT TRUE; -- otherwise the window ended while a settlement had its row
        END LOOP;
    END IF;
    v_effective := coalesce(p_effective_at, v_now);
    IF p_windows IS NOT NULL THEN
        v_expires := v_effective;
        FOR i IN 1 .. p_windows LOOP
            SELECT window_end INTO v_expires FROM earmark.window_at(b, v_expires);
        END LOOP;
    END IF;
    IF v_expires <= greatest(v_now, v_effective) THEN
        RETURN jsonb_build_object('outcome', 'invalid', 'subject', CASE WHEN p_windows IS NULL THEN 'expires_at' ELSE 'effective_at' END);
    END IF;

    PERFORM earmark.roll_over(b, v_now, p_actor); -- what a window left is of the limit as it was
    INSERT INTO earmark.overrides (id, tenant, budget_id, request_hash, source, amount, effective_at, expires_at, reason, created_at)
    VALUES (p_id, p_tenant, b.id, p_hash, p_source, v_amount, v_effective, v_expires, p_reason, v_now) RETURNING * INTO o;
    PERFORM earmark.follow_overrides(b.id);
    PERFORM earmark.note('budget', b.tenant, NULL, b.id, p_actor, earmark.override_words(o) || ': ' || p_reason);
    PERFORM earmark.log_change(b.tenant, p_actor, 'override.create', b.id, p_reason, NULL, earmark.override_json(o));
    RETURN jsonb_build_object('outcome', 'applied', 'override', earmark.override_json(o));
END $$;

-- Ends an override now; one that has ended stays as it is. Outcomes: applied, same, unknown.
CREATE OR REPLACE FUNCTION earmark.end_override(p_tenant text, p_budget_id text, p_id text, p_actor text, p_reason text) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET lock_timeout = '1s' AS $$
DECLARE
    o        earmark.overrides;
    v_before jsonb;
    v_now    timestamptz;
BEGIN
    PERFORM earmark.require_read_committed();
    PERFORM 1 FROM earmark.budgets WHERE tenant = p_tenant AND id = p_budget_id FOR NO KEY UPDATE;
    SELECT * INTO o FROM earmark.overrides WHERE tenant = p_tenant AND budget_id = p_budget_id AND id = p_id;
    v_now := clock_timestamp();
    IF NOT FOUND THEN
        RETURN jsonb_build_object('outcome', 'unknown');
    ELSIF least(o.expires_at, o.ended_at, 'infinity') <= v_now THEN
        RETURN jsonb_build_object('outcome', 'same', 'override', earmark.override_json(o));
    END IF;
    v_before := earmark.override_json(o);
    UPDATE earmark.overrides SET ended_at = v_now WHERE id = o.id RETURNING * INTO o;
    PERFORM earmark.follow_overrides(p_budget_id);
    PERFORM earmark.note('budget', p_tenant, NULL, p_budget_id, p_actor, 'ended ' || earmark.override_words(o) || ': ' || p_reason);
    PERFORM earmark.log_change(p_tenant, p_actor, 'override.end', p_budget_id, p_reason, v_before, earmark.override_json(o));
    RETURN jsonb_build_object('outcome', 'applied', 'override', earmark.override_json(o));
END $$;
