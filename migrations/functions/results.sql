-- The JSON of an answer.

-- What a reservation has of one budget. In SQL, so that a query takes it in.
CREATE OR REPLACE FUNCTION earmark.share_json(p_budget_id text, p_scope text, p_unit text, p_window_start timestamptz, p_reserved bigint, p_committed bigint)
    RETURNS jsonb LANGUAGE sql STABLE AS $$
    SELECT jsonb_build_object('budget_id', p_budget_id, 'scope', p_scope, 'unit', p_unit, 'window_start', p_window_start,
        'reserved', p_reserved, 'committed', p_committed)
$$;

DROP FUNCTION IF EXISTS earmark.reservation_json(earmark.reservations); -- without p_shares: calls would be ambiguous
-- A reservation as callers see it. The scope of each budget is looked up by key: while the
-- tables have no statistics, a join is planned as a scan of all budgets. A caller that knows the shares gives them as p_shares.
CREATE OR REPLACE FUNCTION earmark.reservation_json(r earmark.reservations, p_shares jsonb DEFAULT NULL) RETURNS jsonb LANGUAGE plpgsql STABLE AS $$
BEGIN
    IF p_shares IS NULL THEN
        SELECT coalesce(jsonb_agg(earmark.share_json(s.budget_id, s.scope, s.unit, s.window_start, s.reserved, s.committed)
                                  ORDER BY s.scope, s.unit, s.budget_id), '[]') INTO p_shares
        FROM (SELECT x.*, (SELECT b.scope FROM earmark.budgets b WHERE b.id = x.budget_id) AS scope
              FROM earmark.reservation_budgets x WHERE x.reservation_id = r.id OFFSET 0) AS s; -- OFFSET 0: evaluates the subselect once a row
    END IF;
    RETURN jsonb_build_object(
        'id', r.id, 'state', r.state, 'scopes', r.scopes, 'amounts', r.amounts, 'usage', r.usage, 'overage', r.overage,
        'shortfall', r.shortfall, 'correction', r.correction, 'rejected_usage', r.rejected_usage, 'late', r.late, 'estimated', r.estimated,
        'over_limit', r.over_limit, 'created_at', r.created_at, 'expires_at', r.expires_at, 'settled_at', r.settled_at,
        'overdue', r.state = 'held' AND r.expires_at < clock_timestamp(), 'orphan', r.orphan, 'on_expiry', r.on_expiry,
        'reason', r.reason, 'metadata', r.metadata, 'workflow_id', r.workflow_id, 'response', r.response, 'budgets', p_shares);
END $$;

DROP FUNCTION IF EXISTS earmark.result(text, earmark.reservations); -- without p_shares: calls would be ambiguous
-- The answer of a transition: its outcome and the reservation after it. p_shares is as for earmark.reservation_json.
CREATE OR REPLACE FUNCTION earmark.result(p_outcome text, r earmark.reservations, p_shares jsonb DEFAULT NULL) RETURNS jsonb LANGUAGE plpgsql STABLE AS $$
BEGIN
    RETURN jsonb_build_object('outcome', p_outcome, 'reservation', earmark.reservation_json(r, p_shares),
        'remaining_ms', CASE WHEN r.state = 'held' THEN greatest(0, ceil(extract(epoch FROM r.expires_at - clock_timestamp()) * 1000))::bigint END);
END $$;

-- The answer for an id that is used again, from the existing row; null if there is none.
CREATE OR REPLACE FUNCTION earmark.existing_result(p_id text, p_tenant text, p_hash text) RETURNS jsonb LANGUAGE plpgsql STABLE AS $$
DECLARE
    r earmark.reservations;
BEGIN
    SELECT * INTO r FROM earmark.reservations WHERE id = p_id;
    IF NOT FOUND THEN
        RETURN NULL;
    ELSIF r.tenant = p_tenant AND r.request_hash = p_hash THEN -- mutation: existing-id
        RETURN earmark.result('same', r);
    END IF;
    RETURN jsonb_build_object('outcome', 'mismatch');
END $$;
