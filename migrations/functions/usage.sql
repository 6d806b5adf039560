-- Usage over time. The sums are made after the fact, from the journal, so that no admission and no settlement waits for them.

-- How many values of a dimension have a sum of their own in one bucket of a budget. The others share one sum.
CREATE OR REPLACE FUNCTION earmark.max_usage_values() RETURNS integer LANGUAGE sql IMMUTABLE AS $$ SELECT 200 $$;

-- The quarter of an hour in which an entry of p_at counts: in its own window (R7), also if it came after the window's
-- end or names an earlier moment. Every time zone's hours and days begin at a quarter of an hour of UTC; a window may
-- begin in between, and cuts the quarter. Callers give '-infinity' as the start of a rolling window's slice, which cuts nothing.
CREATE OR REPLACE FUNCTION earmark.usage_quarter(p_window_start timestamptz, p_window_end timestamptz, p_at timestamptz) RETURNS timestamptz
LANGUAGE sql STABLE AS $$
    SELECT greatest(p_window_start, date_bin(interval '15 minutes', least(p_at, p_window_end - interval '1 microsecond'), timestamptz 'epoch')) -- mutation: usage-in-its-window
$$;

DROP FUNCTION IF EXISTS earmark.usage_day(text, timestamptz); -- the day of earmark.window_bounds is the same

-- The scope of a reservation by which a budget on p_budget_scope counts it: the first that the budget covers. Callers look at a
-- single scope themselves, which is faster.
CREATE OR REPLACE FUNCTION earmark.usage_scope(p_budget_scope text, p_scopes text[]) RETURNS text LANGUAGE sql IMMUTABLE AS $$
    SELECT scope FROM unnest(p_scopes) WITH ORDINALITY AS s (scope, place)
    WHERE scope = p_budget_scope OR starts_with(scope, p_budget_scope || '/') ORDER BY place LIMIT 1
$$;

-- Adds the next entries of the journal, up to p_max ids of them, to usage_rollups, and returns by how many ids the
-- watermark moved; 0 if there is nothing to add, or if another session adds it.
--
-- An entry gets its id before its transaction commits, so a later id can be visible before an earlier one. Whoever
-- changes a balance has a transaction id before its entry has an id, because it changes the window first. So once every
-- transaction that had an id when the sequence of entries was at S has ended, every entry up to S is visible, or never
-- will be. One call notes S and its own transaction id, in this order; a later call sees that all before have ended.
CREATE OR REPLACE FUNCTION earmark.roll_up_usage(p_max integer) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET lock_timeout = '1s' SET jit = off AS $$
DECLARE
    w      earmark.usage_watermark;
    v_last bigint;
    v_to   bigint;
BEGIN
    PERFORM earmark.require_read_committed();
    IF pg_current_xact_id_if_assigned() IS NOT NULL THEN
        RAISE EXCEPTION 'earmark.roll_up_usage has to be the first change of its transaction' USING ERRCODE = 'active_sql_transaction';
    END IF;
    SELECT CASE WHEN is_called THEN last_value ELSE 0 END INTO v_last FROM earmark.entries_id_seq;
    SELECT * INTO w FROM earmark.usage_watermark;
    IF v_last = w.entry_id THEN
        RETURN 0;
    END IF;
    SELECT * INTO w FROM earmark.usage_watermark FOR UPDATE SKIP LOCKED;
    IF NOT FOUND THEN
        RETURN 0;
    END IF;
    IF w.next_xid > pg_current_xact_id() THEN -- noted in another cluster, from which this database was copied
        w.next_entry_id := greatest(v_last, w.final_entry_id);
        w.next_xid := pg_current_xact_id();
    ELSIF pg_snapshot_xmin(pg_current_snapshot()) >= w.next_xid THEN -- mutation: usage-of-final-entries
        w.final_entry_id := w.next_entry_id;
        w.next_entry_id := greatest(v_last, w.final_entry_id);
        w.next_xid := pg_current_xact_id();
    END IF;
    v_to := least(w.final_entry_id, w.entry_id + p_max);

    -- Each lookup has OFFSET 0, which keeps it a lookup by key; the planner might scan the table for a join.
    WITH moved AS MATERIALIZED (
        SELECT e.id, e.budget_id, e.committed_delta AS committed, coalesce(e.pruned_reservations, 1) AS charges,
               earmark.usage_quarter(b.cut_at, n.window_end, e.created_at) AS quarter, b.cut_at,
               b.timezone, CASE WHEN cardinality(r.scopes) = 1 THEN r.scopes[1] ELSE earmark.usage_scope(b.scope, r.scopes) END AS scope, r.metadata
        FROM earmark.entries e
             CROSS JOIN LATERAL (SELECT window_end FROM earmark.windows WHERE budget_id = e.budget_id AND window_start = e.window_start OFFSET 0) AS n
             CROSS JOIN LATERAL (SELECT scope, timezone, CASE WHEN period = 'rolling' THEN '-infinity' ELSE e.window_start END AS cut_at
                                 FROM earmark.budgets WHERE id = e.budget_id OFFSET 0) AS b
             LEFT JOIN LATERAL (SELECT scopes, metadata FROM earmark.reservations WHERE id = e.reservation_id OFFSET 0) AS r ON true
        WHERE e.id > w.entry_id AND e.id <= v_to AND e.committed_delta <> 0
    ), in_all AS (
        INSERT INTO earmark.usage_rollups AS u (budget_id, dimension, bucket, value, committed, charges)
        SELECT budget_id, '', quarter, '', sum(committed), sum(charges) FROM moved GROUP BY budget_id, quarter
        ON CONFLICT (budget_id, dimension, bucket, value, other) DO UPDATE
        SET committed = u.committed + excluded.committed, charges = u.charges + excluded.charges
    ), days AS (
        SELECT q.*, d.window_start AS day_start FROM (SELECT DISTINCT timezone, quarter FROM moved) AS q CROSS JOIN LATERAL earmark.window_bounds('day', q.timezone, q.quarter) AS d
    ), valued AS (
        SELECT m.budget_id, d.dimension, greatest(m.cut_at, days.day_start) AS bucket, d.value, sum(m.committed) AS committed, sum(m.charges) AS charges, min(m.id) AS first_id
        FROM moved m JOIN days USING (timezone, quarter)
             CROSS JOIN LATERAL (SELECT 'scope', m.scope WHERE m.scope IS NOT NULL
                                 UNION ALL SELECT 'metadata.' || key, value FROM jsonb_each_text(m.metadata)) AS d (dimension, value)
        GROUP BY 1, 2, 3, 4
    ), placed AS (
        SELECT *, row_number() OVER (PARTITION BY budget_id, dimension, bucket, known ORDER BY first_id, value) AS place
        FROM (SELECT v.*, coalesce((SELECT true FROM earmark.usage_rollups u WHERE u.budget_id = v.budget_id AND u.dimension = v.dimension
                                    AND u.bucket = v.bucket AND u.value = v.value AND NOT u.other), false) AS known
              FROM valued v) AS k
    ), taken AS (
        SELECT budget_id, dimension, bucket, (SELECT count(*) FROM earmark.usage_rollups u
            WHERE u.budget_id = g.budget_id AND u.dimension = g.dimension AND u.bucket = g.bucket AND NOT u.other) AS taken
        FROM (SELECT DISTINCT budget_id, dimension, bucket FROM valued) AS g
    )
    INSERT INTO earmark.usage_rollups AS u (budget_id, dimension, bucket, value, other, committed, charges)
    SELECT budget_id, dimension, bucket, CASE WHEN own THEN value ELSE '' END, NOT own, sum(committed), sum(charges)
    FROM (SELECT *, known OR taken + place <= earmark.max_usage_values() AS own FROM placed JOIN taken USING (budget_id, dimension, bucket)) AS p -- mutation: usage-values-bounded
    GROUP BY 1, 2, 3, 4, 5
    ON CONFLICT (budget_id, dimension, bucket, value, other) DO UPDATE
    SET committed = u.committed + excluded.committed, charges = u.charges + excluded.charges;

    UPDATE earmark.usage_watermark SET entry_id = v_to, final_entry_id = w.final_entry_id, next_entry_id = w.next_entry_id, next_xid = w.next_xid; -- mutation: usage-rolled-up-once
    RETURN v_to - w.entry_id;
END $$;

DROP FUNCTION IF EXISTS earmark.usage_tail(text); -- with other columns
-- The entries of a budget that usage_rollups does not have yet.
CREATE OR REPLACE FUNCTION earmark.usage_tail(p_budget_id text)
    RETURNS TABLE (quarter timestamptz, committed bigint, charges bigint, reservation_id text) LANGUAGE sql STABLE AS $$
    SELECT earmark.usage_quarter(CASE WHEN b.period = 'rolling' THEN '-infinity' ELSE e.window_start END, n.window_end, e.created_at),
           e.committed_delta, coalesce(e.pruned_reservations, 1), e.reservation_id
    FROM earmark.budgets b JOIN earmark.entries e ON e.budget_id = b.id JOIN earmark.windows n ON n.budget_id = e.budget_id AND n.window_start = e.window_start
    WHERE b.id = p_budget_id AND e.budget_id = p_budget_id AND n.budget_id = p_budget_id AND e.id > (SELECT entry_id FROM earmark.usage_watermark) AND e.committed_delta <> 0 -- mutation: usage-tail
$$;

-- What a budget was charged from p_from to p_to: by 'hour' or 'day' in its time zone, or by 'scope' or 'metadata.KEY'.
-- The sums of usage_rollups and the entries that came since give it as it is at this moment. p_from and p_to are moved
-- outwards, to where an hour's quarter or a day (by values) begins and ends in its window; the answer has these.
CREATE OR REPLACE FUNCTION earmark.usage(p_budget_id text, p_from timestamptz, p_to timestamptz, p_by text) RETURNS jsonb
LANGUAGE plpgsql STABLE SET jit = off AS $$
DECLARE
    c_moment CONSTANT interval := '1 microsecond';
    v_zone   text;
    v_scope  text;
    v_period text;
    v_values boolean := p_by NOT IN ('hour', 'day');
    v_first  earmark.windows; -- that contains p_from, if it is stored
    v_last   earmark.windows; -- that contains the last moment before p_to, if it is stored
    v_from   timestamptz;
    v_to     timestamptz;
    v_day    record;
    v_days   timestamptz[] := '{}'; -- the start of each day, and the end of the last
    v_data   jsonb;
    v_total  jsonb;
BEGIN
    SELECT timezone, scope, period INTO STRICT v_zone, v_scope, v_period FROM earmark.budgets WHERE id = p_budget_id;
    IF v_period <> 'rolling' THEN -- a slice cuts nothing
        SELECT * INTO v_first FROM earmark.windows WHERE budget_id = p_budget_id AND window_start <= p_from AND (window_end > p_from OR window_end IS NULL)
        ORDER BY window_start DESC LIMIT 1;
        SELECT * INTO v_last FROM earmark.windows WHERE budget_id = p_budget_id AND window_start < p_to AND (window_end >= p_to OR window_end IS NULL)
        ORDER BY window_start DESC LIMIT 1;
    END IF;
    IF v_values THEN
        SELECT window_start INTO v_from FROM earmark.window_bounds('day', v_zone, p_from);
        SELECT window_end INTO v_to FROM earmark.window_bounds('day', v_zone, p_to - c_moment);
    ELSE
        v_from := date_bin(interval '15 minutes', p_from, timestamptz 'epoch');
        v_to := date_bin(interval '15 minutes', p_to - c_moment, timestamptz 'epoch') + interval '15 minutes';
    END IF;
    v_from := greatest(v_from, v_first.window_start);
    v_to := least(v_to, v_last.window_end);

    IF p_by = 'day' THEN
        SELECT * INTO v_day FROM earmark.window_bounds('day', v_zone, v_from);
        v_days := ARRAY [v_day.window_start];
        LOOP
            v_days := v_days || v_day.window_end;
            EXIT WHEN v_day.window_end >= v_to;
            SELECT * INTO v_day FROM earmark.window_bounds('day', v_zone, v_day.window_end);
        END LOOP;
    END IF;

    IF v_values THEN
        WITH tail AS MATERIALIZED (
            SELECT t.committed, t.charges, t.reservation_id FROM earmark.usage_tail(p_budget_id) t WHERE t.quarter >= v_from AND t.quarter < v_to
        ), total AS (
            SELECT coalesce(sum(p.committed), 0) AS committed, coalesce(sum(p.charges), 0) AS charges
            FROM (SELECT u.committed, u.charges FROM earmark.usage_rollups u
                  WHERE u.budget_id = p_budget_id AND u.dimension = '' AND u.bucket >= v_from AND u.bucket < v_to
                  UNION ALL SELECT t.committed, t.charges FROM tail t) AS p
        ), sums AS (
            SELECT value, other, sum(committed) AS committed, sum(charges) AS charges
            FROM (SELECT u.value, u.other, u.committed, u.charges FROM earmark.usage_rollups u
                  WHERE u.budget_id = p_budget_id AND u.dimension = p_by AND u.bucket >= v_from AND u.bucket < v_to
                  UNION ALL
                  SELECT CASE WHEN p_by <> 'scope' THEN r.metadata ->> substr(p_by, length('metadata.') + 1)
                              WHEN cardinality(r.scopes) = 1 THEN r.scopes[1] ELSE earmark.usage_scope(v_scope, r.scopes) END, false, t.committed, t.charges
                  FROM tail t
                       CROSS JOIN LATERAL (SELECT scopes, metadata FROM earmark.reservations WHERE id = t.reservation_id OFFSET 0) AS r) AS p
            WHERE value IS NOT NULL GROUP BY value, other
        ), placed AS (
            SELECT *, row_number() OVER (ORDER BY other, committed DESC, value) AS place FROM sums
        ), shown AS (
            SELECT CASE WHEN own THEN value END AS value, NOT own AS other, sum(committed) AS committed, sum(charges) AS charges
            FROM (SELECT *, NOT other AND place <= earmark.max_usage_values() AS own FROM placed) AS o GROUP BY 1, 2
            UNION ALL -- what has no value: the rest of the total
            SELECT NULL, false, t.committed - s.committed, t.charges - s.charges
            FROM total t, (SELECT coalesce(sum(committed), 0) AS committed, coalesce(sum(charges), 0) AS charges FROM sums) AS s WHERE t.charges <> s.charges
        )
        SELECT (SELECT jsonb_build_object('committed', committed::bigint, 'charges', charges::bigint) FROM total),
               (SELECT jsonb_agg(jsonb_build_object('value', value, 'other', other, 'committed', committed::bigint, 'charges', charges::bigint)
                                 ORDER BY other, value IS NULL, committed DESC, value) FROM shown)
        INTO v_total, v_data;
    ELSE
        WITH parts AS MATERIALIZED (
            SELECT u.bucket, u.committed, u.charges FROM earmark.usage_rollups u
            WHERE u.budget_id = p_budget_id AND u.dimension = '' AND u.bucket >= v_from AND u.bucket < v_to
            UNION ALL
            SELECT t.quarter, t.committed, t.charges FROM earmark.usage_tail(p_budget_id) t WHERE t.quarter >= v_from AND t.quarter < v_to
        ), periods AS (
            SELECT CASE p_by WHEN 'day' THEN v_days[width_bucket(bucket, v_days)] ELSE bucket - (local - date_trunc('hour', local)) END AS starts,
                   sum(committed) AS committed, sum(charges) AS charges
            FROM (SELECT *, CASE p_by WHEN 'hour' THEN bucket AT TIME ZONE v_zone END AS local FROM parts OFFSET 0) AS p -- OFFSET 0: converts once a row
            GROUP BY 1
        )
        SELECT (SELECT jsonb_build_object('committed', coalesce(sum(committed), 0)::bigint, 'charges', coalesce(sum(charges), 0)::bigint) FROM parts),
               (SELECT jsonb_agg(jsonb_build_object('start', greatest(starts, v_from), 'committed', committed::bigint, 'charges', charges::bigint,
                           'end', least(v_to, CASE p_by WHEN 'day' THEN v_days[width_bucket(starts, v_days) + 1] ELSE starts + interval '1 hour' END)) ORDER BY starts)
                FROM periods)
        INTO v_total, v_data;
    END IF;
    RETURN jsonb_build_object('from', v_from, 'to', v_to, 'data', coalesce(v_data, '[]'), 'total', v_total);
END $$;
