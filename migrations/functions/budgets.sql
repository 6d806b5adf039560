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
        'overage', b.overage, 'allowance', b.allowance, 'thresholds', coalesce(b.thresholds, '[]'), 'created_at', b.created_at, 'archived_at', b.archived_at)
        || CASE WHEN b.rollover IS NULL THEN '{}' ELSE jsonb_build_object('rollover', b.rollover) END
        || CASE WHEN b.template_id IS NULL THEN '{}' ELSE jsonb_build_object('template_id', b.template_id, 'follows_template', b.revision IS NOT NULL) END;
END $$;

DROP FUNCTION IF EXISTS earmark.create_budget(text, text, text, text, bigint, text, text, text, bigint, text, text); -- without p_every: calls would be ambiguous
DROP FUNCTION IF EXISTS earmark.create_budget(text, text, text, text, bigint, text, text, text, bigint, text, text, integer, timestamp); -- without p_thresholds
DROP FUNCTION IF EXISTS earmark.create_budget(text, text, text, text, bigint, text, text, text, bigint, text, text, integer, timestamp, jsonb); -- without p_allowance
DROP FUNCTION IF EXISTS earmark.create_budget(text, text, text, text, bigint, text, text, text, bigint, text, text, integer, timestamp, jsonb, text); -- without p_rollover
-- Raises unique_violation when the scope has a budget of the same unit and length of window.
CREATE OR REPLACE FUNCTION earmark.create_budget(p_id text, p_tenant text, p_scope text, p_unit text, p_limit bigint, p_period text, p_timezone text,
    p_enforcement text, p_soft_ceiling bigint, p_overage text, p_actor text, p_every integer DEFAULT 1, p_anchor timestamp DEFAULT NULL,
    p_thresholds jsonb DEFAULT NULL, p_allowance text DEFAULT 'first', p_rollover jsonb DEFAULT NULL) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET lock_timeout = '1s' AS $$
DECLARE
    b        earmark.budgets;
    v_reason text := format('created with limit %s', p_limit);
BEGIN
    INSERT INTO earmark.budgets (id, tenant, scope, unit, limit_amount, period, timezone, every, anchor, enforcement, soft_ceiling, overage, thresholds, allowance, rollover)
    VALUES (p_id, p_tenant, p_scope, p_unit, p_limit, p_period, p_timezone, p_every, p_anchor, p_enforcement, p_soft_ceiling, p_overage,
            nullif(p_thresholds, '[]'), p_allowance, nullif(p_rollover, '{}')) RETURNING * INTO b;
    b := earmark.begin_rollover(b);
    UPDATE earmark.budgets SET rolled_until = b.rolled_until, granted_until = b.granted_until WHERE id = b.id AND b.rollover IS NOT NULL;
    IF earmark.is_template(b.scope) THEN
        b := earmark.by_hand(b, false);
        UPDATE earmark.budgets SET revision = b.revision WHERE id = b.id;
    END IF;
    PERFORM earmark.note('budget', b.tenant, NULL, b.id, p_actor, v_reason);
    PERFORM earmark.log_change(b.tenant, p_actor, 'budget.create', b.id, v_reason, NULL, earmark.budget_json(b));
END $$;

-- b with what its setting `rollover` needs: its current window is the first one that rolls over, and settlements lock b as one with grants.
CREATE OR REPLACE FUNCTION earmark.begin_rollover(b earmark.budgets) RETURNS earmark.budgets LANGUAGE plpgsql STABLE AS $$
BEGIN
    IF b.rollover IS NULL OR earmark.is_template(b.scope) THEN
        b.rolled_until := NULL;
    ELSE
        b.rolled_until := coalesce(b.rolled_until, (earmark.window_at(b, clock_timestamp())).window_start);
        b.granted_until := coalesce(b.granted_until, '-infinity');
    END IF;
    RETURN b;
END $$;

-- Writes what a change of a budget, whose row the caller has locked, leaves of it.
CREATE OR REPLACE FUNCTION earmark.store_budget(p_before earmark.budgets, p_after earmark.budgets, p_actor text, p_reason text) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
    p_after := earmark.begin_rollover(p_after);
    UPDATE earmark.budgets SET limit_amount = p_after.limit_amount, enforcement = p_after.enforcement, soft_ceiling = p_after.soft_ceiling, overage = p_after.overage,
        allowance = p_after.allowance, thresholds = p_after.thresholds,
        rollover = p_after.rollover, rolled_until = p_after.rolled_until, granted_until = p_after.granted_until, template_id = p_after.template_id, revision = p_after.revision
    WHERE id = p_after.id;
    PERFORM earmark.move_thresholds(p_after, p_before.thresholds, p_before.limit_amount);
    UPDATE earmark.denials SET exhausted_in = NULL WHERE budget_id = p_after.id AND p_after.limit_amount > p_before.limit_amount; -- after a raise it can be exhausted again
    PERFORM earmark.note('budget', p_after.tenant, NULL, p_after.id, p_actor, p_reason);
    PERFORM earmark.log_change(p_after.tenant, p_actor, 'budget.change', p_after.id, p_reason, earmark.budget_json(p_before), earmark.budget_json(p_after));
END $$;

DROP FUNCTION IF EXISTS earmark.lock_budget(text, text); -- with other columns
-- Locks a budget's row until the transaction ends, and returns what may change, and what says whether it may.
CREATE OR REPLACE FUNCTION earmark.lock_budget(p_tenant text, p_id text)
    RETURNS TABLE (limit_amount bigint, enforcement text, soft_ceiling bigint, overage text, archived_at timestamptz, period text, thresholds jsonb, scope text, allowance text, rollover jsonb)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET lock_timeout = '1s' AS $$
DECLARE
    b earmark.budgets;
BEGIN
    SELECT * INTO b FROM earmark.budgets WHERE tenant = p_tenant AND id = p_id FOR NO KEY UPDATE;
    IF FOUND THEN
        b := earmark.followed(b, clock_timestamp());
        RETURN QUERY SELECT b.limit_amount, b.enforcement, b.soft_ceiling, b.overage, b.archived_at, b.period, coalesce(b.thresholds, '[]'), b.scope, b.allowance, b.rollover;
    END IF;
END $$;

DROP FUNCTION IF EXISTS earmark.change_budget(text, text, bigint, text, bigint, text, text, text); -- without p_thresholds: calls would be ambiguous
DROP FUNCTION IF EXISTS earmark.change_budget(text, text, bigint, text, bigint, text, text, text, jsonb); -- without p_next_window
DROP FUNCTION IF EXISTS earmark.change_budget(text, text, bigint, text, bigint, text, text, text, jsonb, boolean); -- without p_allowance
DROP FUNCTION IF EXISTS earmark.change_budget(text, text, bigint, text, bigint, text, text, text, jsonb, boolean, text); -- without p_rollover
-- Changes a budget whose row the caller has locked. p_reason says what changes. p_thresholds replace the budget's; null
-- leaves them, and [] leaves none. Without p_allowance that stays as it is, and so does rollover without p_rollover; {} is none. What its windows left before rolls over as the budget was. With p_next_window the children of a template take the change over with their next windows.
CREATE OR REPLACE FUNCTION earmark.change_budget(p_tenant text, p_id text, p_limit bigint, p_enforcement text, p_soft_ceiling bigint, p_overage text,
    p_actor text, p_reason text, p_thresholds jsonb DEFAULT NULL, p_next_window boolean DEFAULT false, p_allowance text DEFAULT NULL,
    p_rollover jsonb DEFAULT NULL) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET lock_timeout = '1s' AS $$
DECLARE
    b       earmark.budgets;
    v_after earmark.budgets;
BEGIN
    SELECT * INTO STRICT b FROM earmark.budgets WHERE tenant = p_tenant AND id = p_id FOR NO KEY UPDATE;
    b := (earmark.roll_over(b, clock_timestamp(), p_actor)).b; -- mutation: rolls-over-before-a-change
    b := earmark.follow(b, p_actor);
    v_after := b;
    v_after.limit_amount := p_limit;
    v_after.enforcement := p_enforcement;
    v_after.soft_ceiling := p_soft_ceiling;
    v_after.overage := p_overage;
    v_after.allowance := coalesce(p_allowance, b.allowance);
    v_after.thresholds := nullif(coalesce(p_thresholds, b.thresholds), '[]');
    v_after.rollover := nullif(coalesce(p_rollover, b.rollover), '{}');
    PERFORM earmark.store_budget(b, earmark.by_hand(v_after, p_next_window), p_actor, p_reason);
END $$;

-- Archiving twice is once. It does nothing when there is no such budget. A child keeps what it has; its template makes another one when a
-- call next meets its scope. Calls that may be on a child end before it is archived (earmark.keep_children).
CREATE OR REPLACE FUNCTION earmark.archive_budget(p_tenant text, p_id text, p_actor text) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET lock_timeout = '1s' AS $$
DECLARE
    b        earmark.budgets;
    v_before jsonb;
BEGIN
    SELECT * INTO b FROM earmark.budgets WHERE tenant = p_tenant AND id = p_id;
    PERFORM pg_advisory_xact_lock(earmark.child_key(b.tenant, b.scope));
    SELECT * INTO b FROM earmark.budgets WHERE tenant = p_tenant AND id = p_id FOR NO KEY UPDATE;
    IF NOT FOUND OR b.archived_at IS NOT NULL THEN
        RETURN;
    END IF;
    b := earmark.follow(b, p_actor);
    v_before := earmark.budget_json(b);
    UPDATE earmark.budgets SET archived_at = clock_timestamp(), revision = CASE WHEN earmark.is_template(scope) THEN revision END
    WHERE id = b.id RETURNING * INTO b;
    PERFORM earmark.note('budget', b.tenant, NULL, b.id, p_actor, 'archived');
    PERFORM earmark.log_change(b.tenant, p_actor, 'budget.archive', b.id, 'archived', v_before, earmark.budget_json(b));
END $$;
