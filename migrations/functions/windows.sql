-- The bounds of a window.

-- The window of a period that holds p_at: window_start <= p_at < window_end.
CREATE OR REPLACE FUNCTION earmark.window_bounds(p_period text, p_timezone text, p_at timestamptz, OUT window_start timestamptz, OUT window_end timestamptz)
LANGUAGE plpgsql STABLE AS $$
DECLARE
    v_local timestamp;
    v_step  interval;
BEGIN
    IF p_period = 'lifetime' THEN
        window_start := 'epoch';
        RETURN;
    ELSIF p_period = 'hour' THEN
        window_start := date_trunc('hour', p_at, p_timezone);
        window_end := window_start + interval '1 hour';
        RETURN;
    END IF;
    v_step := ('1 ' || p_period)::interval;
    v_local := date_trunc(p_period, p_at AT TIME ZONE p_timezone);
    LOOP
        window_start := v_local AT TIME ZONE p_timezone;
        window_end := (v_local + v_step) AT TIME ZONE p_timezone;
        -- Where clocks are set back over midnight that midnight comes twice, and
        -- the first hour of the local day can lie before the window's start.
        IF p_at < window_start THEN
            v_local := v_local - v_step;
        ELSIF p_at >= window_end THEN
            v_local := v_local + v_step;
        ELSE
            RETURN;
        END IF;
    END LOOP;
END $$;
