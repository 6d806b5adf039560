-- The bounds of a window.
DROP FUNCTION IF EXISTS earmark.window_bounds(text, text, timestamptz); -- without p_every: calls would be ambiguous

-- Nothing here depends on the time zone of the session. Postgres uses that zone when it
-- adds an interval with days to a timestamptz; so such results are checked afterwards, or
-- the interval is converted to seconds first.

-- The instant in (p_before, p_after] at which the clocks of p_timezone change. They change
-- once in that range, on a whole second; p_before is a whole second.
CREATE OR REPLACE FUNCTION earmark.clock_change(p_timezone text, p_before timestamptz, p_after timestamptz) RETURNS timestamptz
LANGUAGE plpgsql STABLE AS $$
DECLARE
    c_second CONSTANT interval := '1 second';
    v_before timestamptz := p_before;
    v_after  timestamptz := p_after;
    v_middle timestamptz;
    v_read   timestamp := p_before AT TIME ZONE p_timezone;
BEGIN
    WHILE v_after - v_before > c_second LOOP
        v_middle := v_before + make_interval(secs => floor(extract(epoch FROM v_after - v_before) / 2));
        IF (v_middle AT TIME ZONE p_timezone) - v_read = v_middle - p_before THEN
            v_before := v_middle;
        ELSE
            v_after := v_middle;
        END IF;
    END LOOP;
    RETURN v_before + c_second;
END $$;

-- The first instant at which clocks in p_timezone show p_local or later. p_near is that
-- instant, or up to some hours away from it.
CREATE OR REPLACE FUNCTION earmark.first_instant(p_timezone text, p_local timestamp, p_near timestamptz) RETURNS timestamptz
LANGUAGE plpgsql STABLE AS $$
DECLARE
    c_past  CONSTANT interval := '26 hours'; -- more than any change of clocks
    v_at    timestamptz;
    v_ahead interval; -- how far clocks at v_at are ahead of p_local
BEGIN
    -- If midnight comes twice, the offset of the day before gives the first one.
    v_at := p_near - make_interval(secs => extract(epoch FROM ((p_near - c_past) AT TIME ZONE p_timezone) - (p_local - c_past)));
    v_ahead := make_interval(secs => extract(epoch FROM (v_at AT TIME ZONE p_timezone) - p_local));
    IF v_ahead > interval '0' AND (v_at - v_ahead) AT TIME ZONE p_timezone < p_local THEN
        RETURN earmark.clock_change(p_timezone, v_at - v_ahead, v_at); -- clocks skip p_local
    END IF;
    RETURN v_at - v_ahead; -- if clocks change in between, they show another time than p_local at this instant
END $$;

-- A start of a window from which the others are counted, for budgets without an anchor: a Monday, and the first of
-- a year.
CREATE OR REPLACE FUNCTION earmark.default_anchor() RETURNS timestamp LANGUAGE sql IMMUTABLE AS $$ SELECT timestamp '2001-01-01' $$;

-- The window of p_every periods that contains p_at: window_start <= p_at < window_end. The windows are counted from
-- p_anchor, a local time, and each from there, so that the 31st comes again after a shorter month.
--
-- A window of days, weeks, months or years starts at the first instant at which clocks show its local start or later,
-- and ends where the next one starts: if clocks return to a date, it does not start again. Windows of minutes, and of
-- hours from an anchor or of several, are of equal length; so are the slices of a rolling window, of p_every seconds. Any other hour starts when clocks show a full hour, and when
-- they change by a part of an hour.
CREATE OR REPLACE FUNCTION earmark.window_bounds(p_period text, p_timezone text, p_at timestamptz, p_every integer DEFAULT 1, p_anchor timestamp DEFAULT NULL,
    OUT window_start timestamptz, OUT window_end timestamptz)
LANGUAGE plpgsql STABLE AS $$
DECLARE
    c_past   CONSTANT interval := '26 hours'; -- more than any change of clocks
    v_anchor timestamp := coalesce(p_anchor, earmark.default_anchor());
    v_local  timestamp; -- what clocks show at p_at
    v_first  timestamp; -- the start of the window in local time
    v_next   timestamp; -- the start of the next window in local time
    v_step   interval;  -- the length of a window, or p_every periods
    v_number numeric;   -- the windows between the anchor and v_first
    v_months integer;
BEGIN
    IF p_period = 'lifetime' THEN
        window_start := 'epoch';
        RETURN;
    END IF;
    v_step := p_every * CASE p_period WHEN 'rolling' THEN interval '1 second' WHEN 'minute' THEN interval '1 minute' WHEN 'hour' THEN interval '1 hour' WHEN 'day' THEN interval '1 day'
                                      WHEN 'week' THEN interval '7 days' WHEN 'month' THEN interval '1 month' ELSE interval '1 year' END;
    IF p_period IN ('minute', 'rolling') OR (p_period = 'hour' AND (p_every > 1 OR p_anchor IS NOT NULL)) THEN
        window_start := CASE p_period WHEN 'rolling' THEN 'epoch' ELSE earmark.first_instant(p_timezone, v_anchor, v_anchor AT TIME ZONE p_timezone) END;
        v_number := floor((extract(epoch FROM p_at) - extract(epoch FROM window_start)) / extract(epoch FROM v_step));
        window_start := window_start + make_interval(secs => v_number * extract(epoch FROM v_step));
        window_end := window_start + v_step;
        RETURN;
    END IF;
    v_local := p_at AT TIME ZONE p_timezone;
    IF p_period = 'hour' THEN
        v_first := date_trunc('hour', v_local);
        v_next := v_first + v_step;
    ELSE
        IF p_period IN ('day', 'week') THEN
            v_number := floor(extract(epoch FROM v_local - v_anchor) / extract(epoch FROM v_step));
        ELSE
            v_months := (extract(year FROM v_local) - extract(year FROM v_anchor)) * 12 + extract(month FROM v_local) - extract(month FROM v_anchor);
            v_number := floor(v_months / (p_every * CASE p_period WHEN 'month' THEN 1 ELSE 12 END)::numeric);
            IF v_anchor + v_number * v_step > v_local THEN
                v_number := v_number - 1; -- its month has come, and not yet its day
            END IF;
        END IF;
        v_first := v_anchor + v_number * v_step;
        v_next := v_anchor + (v_number + 1) * v_step; -- mutation: from-anchor
    END IF;
    IF p_timezone = 'UTC' THEN -- the clocks of UTC never change
        window_start := v_first AT TIME ZONE p_timezone;
        window_end := v_next AT TIME ZONE p_timezone;
        RETURN;
    END IF;
    window_start := p_at - (v_local - v_first);
    window_end := p_at + (v_next - v_local);
    IF p_period = 'hour' THEN
        IF window_start AT TIME ZONE p_timezone <> v_first OR window_end AT TIME ZONE p_timezone <> v_next THEN -- mutation: cut-hour
            v_local := window_start AT TIME ZONE p_timezone;
            IF v_local <> date_trunc('hour', v_local) THEN
                window_start := earmark.clock_change(p_timezone, window_start, p_at);
            END IF;
            v_local := window_end AT TIME ZONE p_timezone;
            IF v_local <> date_trunc('hour', v_local) THEN
                window_end := earmark.clock_change(p_timezone, date_trunc('second', p_at), window_end);
            END IF;
        END IF;
        RETURN;
    END IF;
    -- The bounds are right if clocks show exactly these times and did not change shortly
    -- before.
    IF window_start AT TIME ZONE p_timezone <> v_first OR (window_start - c_past) AT TIME ZONE p_timezone <> v_first - c_past THEN -- mutation: first-midnight
        window_start := earmark.first_instant(p_timezone, v_first, window_start);
    END IF;
    LOOP
        IF window_end AT TIME ZONE p_timezone <> v_next OR (window_end - c_past) AT TIME ZONE p_timezone <> v_next - c_past THEN -- mutation: first-midnight
            window_end := earmark.first_instant(p_timezone, v_next, window_end);
        END IF;
        EXIT WHEN p_at < window_end; -- mutation: date-again
        -- The next window began before p_at, and then clocks went back into this one.
        window_start := window_end;
        v_number := v_number + 1;
        v_first := v_next;
        v_next := v_anchor + (v_number + 1) * v_step;
        window_end := window_end + (v_next - v_first);
    END LOOP;
END $$;

-- The window of budget b that holds p_at, with its sums. A stored window keeps its bounds, also when newer
-- time-zone data gives others. A window that is not stored overlaps no stored one (R7).
CREATE OR REPLACE FUNCTION earmark.window_at(b earmark.budgets, p_at timestamptz,
    OUT window_start timestamptz, OUT window_end timestamptz, OUT reserved bigint, OUT committed bigint)
LANGUAGE plpgsql STABLE AS $$
DECLARE
    v_bounds record;
    v_next   timestamptz;
BEGIN
    SELECT w.window_start, w.window_end, w.reserved, w.committed INTO window_start, window_end, reserved, committed
    FROM earmark.windows w WHERE w.budget_id = b.id AND w.window_start <= p_at ORDER BY w.window_start DESC LIMIT 1;
    IF FOUND AND coalesce(window_end > p_at, true) THEN -- mutation: stored-window
        RETURN;
    END IF;
    SELECT w.window_start INTO v_next FROM earmark.windows w
    WHERE w.budget_id = b.id AND w.window_start > p_at ORDER BY w.window_start LIMIT 1;
    v_bounds := earmark.window_bounds(b.period, b.timezone, p_at, b.every, b.anchor);
    window_start := greatest(v_bounds.window_start, window_end); -- mutation: no-overlap
    window_end := least(v_bounds.window_end, v_next); -- mutation: no-overlap
    reserved := 0;
    committed := 0;
END $$;

-- The same by parts of a budget, as programs for schema 12 and earlier call it in their lists.
CREATE OR REPLACE FUNCTION earmark.window_at(p_budget_id text, p_period text, p_timezone text, p_at timestamptz,
    OUT window_start timestamptz, OUT window_end timestamptz, OUT reserved bigint, OUT committed bigint)
LANGUAGE sql STABLE AS $$
    SELECT w.window_start, w.window_end, w.reserved, w.committed FROM earmark.budgets b CROSS JOIN LATERAL earmark.window_at(b, p_at) w WHERE b.id = p_budget_id
$$;
