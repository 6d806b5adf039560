-- Rolling windows. A row of earmark.windows is one slice of such a window: it starts at a multiple of the slice's
-- length since 1970, whatever the time zone, and the rolling window is the current slice and the 60 before it. So an
-- amount counts for at least the length of the window, and for at most one slice longer.

CREATE OR REPLACE FUNCTION earmark.slices_before() RETURNS integer LANGUAGE sql IMMUTABLE AS $$ SELECT 60 $$;

-- The length of a slice of b; null if b is not rolling.
CREATE OR REPLACE FUNCTION earmark.slice_of(b earmark.budgets) RETURNS interval LANGUAGE plpgsql IMMUTABLE AS $$
BEGIN
    RETURN CASE b.period WHEN 'rolling' THEN make_interval(secs => b.every) END;
END $$;

-- The sums of all slices of a budget from p_from on but the one at p_but, which holds p_own. No sum with p_own is
-- larger than int64. Later slices count as well: an admission that waited for its locks may be in an earlier one.
CREATE OR REPLACE FUNCTION earmark.other_slices(p_budget_id text, p_from timestamptz, p_but timestamptz, p_own bigint,
    OUT reserved bigint, OUT committed bigint)
LANGUAGE plpgsql STABLE AS $$
DECLARE
    c_max CONSTANT bigint := 9223372036854775807;
    s record;
BEGIN
    SELECT coalesce(sum(w.reserved), 0) AS reserved, coalesce(sum(w.committed), 0) AS committed INTO s FROM earmark.windows w
    WHERE w.budget_id = p_budget_id AND w.window_start >= p_from AND w.window_start <> p_but; -- mutation: other-slices
    reserved := least(s.reserved, c_max - p_own);
    committed := least(s.committed, c_max - p_own - reserved);
END $$;

-- What admissions to b may not exceed; null without such an amount.
CREATE OR REPLACE FUNCTION earmark.ceiling(b earmark.budgets) RETURNS bigint LANGUAGE sql IMMUTABLE AS $$
    SELECT CASE b.enforcement WHEN 'hard' THEN b.limit_amount ELSE b.soft_ceiling END
$$;

-- The affected rolling budget b, of whose slices one holds the given sums.
CREATE OR REPLACE FUNCTION earmark.affect_slices(b earmark.budgets, p_start timestamptz, p_end timestamptz, p_reserved bigint, p_committed bigint) RETURNS earmark.affected_budget
LANGUAGE plpgsql STABLE AS $$
DECLARE
    v_ceiling bigint := earmark.ceiling(b);
    v_slice   interval := earmark.slice_of(b);
    o         record;
BEGIN
    o := earmark.other_slices(b.id, p_start - v_slice * earmark.slices_before(), p_start, p_reserved + p_committed);
    RETURN ROW (b.id, b.scope, b.unit, b.period, b.limit_amount, v_ceiling - o.reserved - o.committed, p_start, p_end, p_reserved, p_committed,
                v_slice, o.reserved, o.committed, NULL, NULL, NULL, NULL, NULL, NULL)::earmark.affected_budget;
END $$;

-- The affected budget b, of whose windows one holds the given sums. In SQL, so that an expression takes it in.
CREATE OR REPLACE FUNCTION earmark.affect(b earmark.budgets, p_start timestamptz, p_end timestamptz, p_reserved bigint, p_committed bigint) RETURNS earmark.affected_budget
LANGUAGE sql STABLE AS $$
    SELECT CASE WHEN b.period = 'rolling' THEN earmark.affect_slices(b, p_start, p_end, p_reserved, p_committed)
                ELSE ROW (b.id, b.scope, b.unit, b.period, b.limit_amount, earmark.ceiling(b), p_start, p_end, p_reserved, p_committed,
                          NULL, 0, 0, NULL, NULL, NULL, NULL, NULL, NULL)::earmark.affected_budget END
$$;

-- The starts of the windows whose sums count in t: its own, or the slices of a rolling one, the oldest first.
CREATE OR REPLACE FUNCTION earmark.counted_windows(t earmark.affected_budget) RETURNS SETOF timestamptz LANGUAGE plpgsql STABLE AS $$
BEGIN
    IF t.slice IS NULL THEN
        RETURN NEXT t.window_start;
    ELSE
        RETURN QUERY SELECT w.window_start FROM earmark.windows w
            WHERE w.budget_id = t.budget_id AND w.window_start >= t.window_start - t.slice * earmark.slices_before() ORDER BY 1;
    END IF;
END $$;

-- The balance of budget b at p_at: of its window, or of the slices that then count.
CREATE OR REPLACE FUNCTION earmark.balance_at(b earmark.budgets, p_at timestamptz,
    OUT window_start timestamptz, OUT window_end timestamptz, OUT reserved bigint, OUT committed bigint)
LANGUAGE plpgsql STABLE AS $$
DECLARE
    w record := earmark.window_at(b, p_at);
    t earmark.affected_budget;
BEGIN
    window_start := w.window_start;
    window_end := w.window_end;
    reserved := w.reserved;
    committed := w.committed;
    IF b.period = 'rolling' THEN
        t := earmark.affect(b, window_start, window_end, reserved, committed);
        window_start := window_start - t.slice * earmark.slices_before();
        reserved := reserved + t.other_reserved;
        committed := committed + t.other_committed;
    END IF;
END $$;

-- What else a rolling window holds beside the slice at p_start: the current window, or if that slice has left it, what
-- came after its own. 0 for all other windows.
CREATE OR REPLACE FUNCTION earmark.held_elsewhere(p_budget_id text, p_start timestamptz) RETURNS numeric LANGUAGE plpgsql STABLE AS $$
DECLARE
    b      earmark.budgets;
    v_from timestamptz;
    o      record;
BEGIN
    SELECT * INTO b FROM earmark.budgets WHERE id = p_budget_id;
    IF b.period <> 'rolling' THEN
        RETURN 0;
    END IF;
    SELECT w.window_start - earmark.slice_of(b) * earmark.slices_before() INTO v_from FROM earmark.window_bounds(b.period, b.timezone, clock_timestamp(), b.every) AS w;
    o := earmark.other_slices(p_budget_id, least(v_from, p_start), p_start, 0);
    RETURN o.reserved::numeric + o.committed;
END $$;
