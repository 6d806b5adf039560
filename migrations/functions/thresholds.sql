-- Thresholds of budgets. Each is crossed once a window, at the first moment at which the balance reaches it.
DROP FUNCTION IF EXISTS earmark.set_thresholds(text, text, jsonb, text, text); -- earmark.change_budget does it

-- The thresholds as rows, each with its amount under p_limit, rounded up and at least 1. A
-- division of numeric rounds by itself, so div.
CREATE OR REPLACE FUNCTION earmark.threshold_rows(p_thresholds jsonb, p_limit bigint) RETURNS TABLE (threshold jsonb, kind text, amount bigint)
LANGUAGE sql IMMUTABLE AS $$
    SELECT t, t ->> 'of', greatest(1, coalesce((t ->> 'amount')::bigint, div(p_limit::numeric * (t ->> 'percent')::numeric + 99, 100)::bigint))
    FROM jsonb_array_elements(p_thresholds) AS t
$$;

-- The least amount above p_above that crosses a threshold of the kind 'committed' or 'used'; null if there is none.
CREATE OR REPLACE FUNCTION earmark.next_threshold(b earmark.budgets, p_kind text, p_above bigint DEFAULT 0) RETURNS bigint
LANGUAGE sql STABLE AS $$
    SELECT min(amount) FROM earmark.threshold_rows(b.thresholds, b.limit_amount) WHERE kind = p_kind AND amount > p_above
$$;

CREATE OR REPLACE FUNCTION earmark.emit_crossed(b earmark.budgets, w earmark.windows, p_threshold jsonb, p_amount bigint) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
    PERFORM earmark.emit('budget.threshold_crossed', b.tenant, ARRAY [b.scope], b.id, NULL, w.window_start,
        jsonb_build_object('unit', b.unit, 'limit', b.limit_amount, 'threshold', p_threshold, 'threshold_amount', p_amount,
            'committed', w.committed, 'reserved', w.reserved, 'window_end', w.window_end));
END $$;

-- Writes an event for each threshold that a window, which the caller has locked, has reached since the last one.
CREATE OR REPLACE FUNCTION earmark.cross_thresholds(p_budget_id text, p_window_start timestamptz) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
    b earmark.budgets;
    w earmark.windows;
BEGIN
    SELECT * INTO b FROM earmark.budgets WHERE id = p_budget_id;
    SELECT * INTO w FROM earmark.windows WHERE budget_id = p_budget_id AND window_start = p_window_start;
    PERFORM earmark.emit_crossed(b, w, t.threshold, t.amount)
    FROM earmark.threshold_rows(b.thresholds, b.limit_amount) AS t
    WHERE CASE t.kind WHEN 'committed' THEN t.amount BETWEEN w.next_committed AND w.committed
                      ELSE t.amount BETWEEN w.next_used AND w.reserved + w.committed END
    ORDER BY t.amount, t.kind;
    UPDATE earmark.windows SET
        next_committed = CASE WHEN committed >= next_committed THEN earmark.next_threshold(b, 'committed', committed) ELSE next_committed END, -- mutation: crossed-once
        next_used = CASE WHEN reserved + committed >= next_used THEN earmark.next_threshold(b, 'used', reserved + committed) ELSE next_used END
    WHERE budget_id = p_budget_id AND window_start = p_window_start;
END $$;

-- Applies a change of the limit or of the thresholds to the current window, and to later ones, which a clock that went
-- back has left. A threshold that is now above the balance is crossed again when the balance reaches it. One that the change puts at or below the balance is crossed by the
-- change, unless it was crossed before in this window.
CREATE OR REPLACE FUNCTION earmark.move_thresholds(b earmark.budgets, p_thresholds_before jsonb, p_limit_before bigint) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
    v_now timestamptz := clock_timestamp();
    w     earmark.windows;
BEGIN
    IF b.thresholds IS NULL AND p_thresholds_before IS NULL OR (b.thresholds, b.limit_amount) IS NOT DISTINCT FROM (p_thresholds_before, p_limit_before) THEN
        RETURN;
    END IF;
    FOR w IN SELECT * FROM earmark.windows WHERE budget_id = b.id AND window_start >= coalesce(
                 (SELECT max(x.window_start) FROM earmark.windows x WHERE x.budget_id = b.id AND x.window_start <= v_now), '-infinity')
             ORDER BY window_start FOR NO KEY UPDATE LOOP
        CONTINUE WHEN w.window_end <= v_now;
        PERFORM earmark.emit_crossed(b, w, t.threshold, t.amount)
        FROM earmark.threshold_rows(b.thresholds, b.limit_amount) AS t
        WHERE t.amount <= w.committed + CASE t.kind WHEN 'used' THEN w.reserved ELSE 0 END
          AND NOT EXISTS (SELECT 1 FROM earmark.threshold_rows(p_thresholds_before, p_limit_before) AS o
                          WHERE o.threshold = t.threshold
                            AND coalesce(o.amount < CASE o.kind WHEN 'used' THEN w.next_used ELSE w.next_committed END, true)) -- null: all are crossed
        ORDER BY t.amount, t.kind;
        UPDATE earmark.windows SET next_committed = earmark.next_threshold(b, 'committed', committed), -- mutation: crossed-after-raise
            next_used = earmark.next_threshold(b, 'used', reserved + committed)
        WHERE budget_id = w.budget_id AND window_start = w.window_start;
    END LOOP;
END $$;
