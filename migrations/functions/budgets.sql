-- Changes of budgets. Each leaves an entry in the journal and a row in the audit log.

-- What a budget is limited over, as the API shows it: without what has its default.
CREATE OR REPLACE FUNCTION earmark.window_json(b earmark.budgets) RETURNS jsonb LANGUAGE plpgsql STABLE AS $$
BEGIN
    RETURN jsonb_strip_nulls(jsonb_build_object('period', b.period, 'timezone', b.timezone, 'rolling_seconds', CASE b.period WHEN 'rolling' THEN b.every * 60 END,
        'every', CASE b.period WHEN 'rolling' THEN NULL ELSE nullif(b.every, 1) END, 'anchor', to_char(b.anchor, 'YYYY-MM-DD"T"HH24:MI')));
END $$;

-- A budget without its balance, as the audit log keeps it.
CREATE OR REPLACE FUNCTION earmark.budget_json(b earmark.budgets) RETURNS jsonb LANGUAGE plpgsql STABLE AS $$
BEGIN
    RETURN jsonb_build_object('id', b.id, 'scope', b.scope, 'unit', b.unit, 'limit', b.limit_amount,
        'window', earmark.window_json(b), 'enforcement', b.enforcement, 'soft_ceiling', b.soft_ceiling,
        'overage', b.overage, 'thresholds', coalesce(b.thresholds, '[]'), 'created_at', b.created_at, 'archived_at', b.archived_at);
END $$;

DROP FUNCTION IF EXISTS earmark.create_budget(text, text, text, text, bigint, text, text, text, bigint, text, text); -- without p_every: calls would be ambiguous
DROP FUNCTION IF EXISTS earmark.create_budget(text, text, text, text, bigint, text, text, text, bigint, text, text, integer, timestamp); -- without p_thresholds
-- Raises unique_violation when the scope has a budget of the same unit and length of window.
CREATE OR REPLACE FUNCTION earmark.create_budget(p_id text, p_tenant text, p_scope text, p_unit text, p_limit bigint, p_period text, p_timezone text,
    p_enforcement text, p_soft_ceiling bigint, p_overage text, p_actor text, p_every integer DEFAULT 1, p_anchor timestamp DEFAULT NULL,
    p_thresholds jsonb DEFAULT NULL) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET lock_timeout = '1s' AS $$
DECLARE
    b        earmark.budgets;
    v_reason text := format('created with limit %s', p_limit);
BEGIN
    INSERT INTO earmark.budgets (id, tenant, scope, unit, limit_amount, period, timezone, every, anchor, enforcement, soft_ceiling, overage, thresholds)
    VALUES (p_id, p_tenant, p_scope, p_unit, p_limit, p_period, p_timezone, p_every, p_anchor, p_enforcement, p_soft_ceiling, p_overage,
            nullif(p_thresholds, '[]')) RETURNING * INTO b;
    PERFORM earmark.note('budget', b.tenant, NULL, b.id, p_actor, v_reason);
    PERFORM earmark.log_change(b.tenant, p_actor, 'budget.create', b.id, v_reason, NULL, earmark.budget_json(b));
END $$;

DROP FUNCTION IF EXISTS earmark.lock_budget(text, text); -- with other columns
-- Locks a budget's row until the transaction ends, and returns what may change.
CREATE OR REPLACE FUNCTION earmark.lock_budget(p_tenant text, p_id text)
    RETURNS TABLE (limit_amount bigint, enforcement text, soft_ceiling bigint, overage text, archived_at timestamptz, period text, thresholds jsonb)
LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET lock_timeout = '1s' AS $$
    SELECT limit_amount, enforcement, soft_ceiling, overage, archived_at, period, coalesce(thresholds, '[]') FROM earmark.budgets WHERE tenant = p_tenant AND id = p_id FOR NO KEY UPDATE
$$;

DROP FUNCTION IF EXISTS earmark.change_budget(text, text, bigint, text, bigint, text, text, text); -- without p_thresholds: calls would be ambiguous
-- Changes a budget whose row the caller has locked. p_reason says what changes. p_thresholds replace the budget's; null
-- leaves them, and [] leaves none.
CREATE OR REPLACE FUNCTION earmark.change_budget(p_tenant text, p_id text, p_limit bigint, p_enforcement text, p_soft_ceiling bigint, p_overage text,
    p_actor text, p_reason text, p_thresholds jsonb DEFAULT NULL) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET lock_timeout = '1s' AS $$
DECLARE
    b        earmark.budgets;
    v_before earmark.budgets;
BEGIN
    SELECT * INTO STRICT v_before FROM earmark.budgets WHERE tenant = p_tenant AND id = p_id FOR NO KEY UPDATE;
    UPDATE earmark.budgets SET limit_amount = p_limit, enforcement = p_enforcement, soft_ceiling = p_soft_ceiling, overage = p_overage,
        thresholds = nullif(coalesce(p_thresholds, v_before.thresholds), '[]')
    WHERE id = p_id RETURNING * INTO b;
    PERFORM earmark.move_thresholds(b, v_before.thresholds, v_before.limit_amount);
    UPDATE earmark.denials SET exhausted_in = NULL WHERE budget_id = b.id AND p_limit > v_before.limit_amount; -- after a raise it can be exhausted again
    PERFORM earmark.note('budget', b.tenant, NULL, b.id, p_actor, p_reason);
    PERFORM earmark.log_change(b.tenant, p_actor, 'budget.change', b.id, p_reason, earmark.budget_json(v_before), earmark.budget_json(b));
END $$;

-- Archiving twice is once. It does nothing when there is no such budget.
CREATE OR REPLACE FUNCTION earmark.archive_budget(p_tenant text, p_id text, p_actor text) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET lock_timeout = '1s' AS $$
DECLARE
    b        earmark.budgets;
    v_before jsonb;
BEGIN
    SELECT * INTO b FROM earmark.budgets WHERE tenant = p_tenant AND id = p_id FOR NO KEY UPDATE;
    IF NOT FOUND OR b.archived_at IS NOT NULL THEN
        RETURN;
    END IF;
    v_before := earmark.budget_json(b);
    UPDATE earmark.budgets SET archived_at = clock_timestamp() WHERE id = b.id RETURNING * INTO b;
    PERFORM earmark.note('budget', b.tenant, NULL, b.id, p_actor, 'archived');
    PERFORM earmark.log_change(b.tenant, p_actor, 'budget.archive', b.id, 'archived', v_before, earmark.budget_json(b));
END $$;
