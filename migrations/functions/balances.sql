-- The writers of balances and of the journal. Only earmark.post and earmark.expire_all change a balance (R3).

-- Changes one balance, writes its journal entry, and inserts or updates the reservation's
-- share in that budget, in one statement. A new share has p_unit. Without p_unit,
-- p_committed_delta is added to the existing share and its overdue_at is cleared. p_ceiling
-- is the limit that the admission was checked against, and p_granted what grants bear of a new share. Every lookup is by key: while the
-- tables have no statistics, the planner would scan them for a join.
DROP FUNCTION IF EXISTS earmark.post(text, text, text, text, timestamptz, bigint, bigint, text, text, text, timestamptz, boolean, bigint); -- without p_granted
CREATE OR REPLACE FUNCTION earmark.post(p_kind text, p_tenant text, p_reservation_id text, p_budget_id text, p_window_start timestamptz,
    p_reserved_delta bigint, p_committed_delta bigint, p_actor text, p_reason text,
    p_unit text DEFAULT NULL, p_overdue_at timestamptz DEFAULT NULL, p_frees_on_expiry boolean DEFAULT false, p_ceiling bigint DEFAULT NULL,
    p_granted bigint DEFAULT 0) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
    v_crossed boolean;
BEGIN
    IF p_unit IS NOT NULL THEN
        WITH changed AS (
            UPDATE earmark.windows SET reserved = reserved + p_reserved_delta, committed = committed + p_committed_delta,
                granted_reserved = granted_reserved + p_granted
            WHERE budget_id = p_budget_id AND window_start = p_window_start
            RETURNING reserved, committed, next_committed, next_used
        ), share AS (
            INSERT INTO earmark.reservation_budgets (reservation_id, budget_id, window_start, unit, reserved, committed, overdue_at, frees_on_expiry)
            VALUES (p_reservation_id, p_budget_id, p_window_start, p_unit, p_reserved_delta, p_committed_delta, p_overdue_at, p_frees_on_expiry)
        ), entry AS (
            INSERT INTO earmark.entries (kind, tenant, reservation_id, budget_id, window_start, reserved_delta, committed_delta,
                                         reserved_after, committed_after, ceiling, actor, reason)
            SELECT p_kind, p_tenant, p_reservation_id, p_budget_id, p_window_start, p_reserved_delta, p_committed_delta,
                   reserved, committed, p_ceiling, p_actor, p_reason
            FROM changed
        )
        SELECT committed >= next_committed OR reserved + committed >= next_used INTO v_crossed FROM changed;
    ELSE
        WITH changed AS (
            UPDATE earmark.windows SET reserved = reserved + p_reserved_delta, committed = committed + p_committed_delta -- mutation: balance-with-entry
            WHERE budget_id = p_budget_id AND window_start = p_window_start
            RETURNING reserved, committed, next_committed, next_used
        ), share AS (
            UPDATE earmark.reservation_budgets SET committed = committed + p_committed_delta, overdue_at = NULL
            WHERE reservation_id = p_reservation_id AND budget_id = p_budget_id
        ), entry AS (
            INSERT INTO earmark.entries (kind, tenant, reservation_id, budget_id, window_start, reserved_delta, committed_delta,
                                         reserved_after, committed_after, ceiling, actor, reason)
            SELECT p_kind, p_tenant, p_reservation_id, p_budget_id, p_window_start, p_reserved_delta, p_committed_delta,
                   reserved, committed, p_ceiling, p_actor, p_reason
            FROM changed
        )
        SELECT committed >= next_committed OR reserved + committed >= next_used INTO v_crossed FROM changed;
    END IF;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'budget % has no window at %', p_budget_id, p_window_start USING ERRCODE = 'no_data_found';
    ELSIF v_crossed THEN -- mutation: thresholds-crossed
        PERFORM earmark.cross_thresholds(p_budget_id, p_window_start);
    END IF;
END $$;

-- Writes a journal entry that changes no balance.
CREATE OR REPLACE FUNCTION earmark.note(p_kind text, p_tenant text, p_reservation_id text, p_budget_id text, p_actor text, p_reason text) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO earmark.entries (kind, tenant, reservation_id, budget_id, actor, reason)
    VALUES (p_kind, p_tenant, p_reservation_id, p_budget_id, p_actor, p_reason);
END $$;
