-- Rollover: what a window leaves of its limit becomes a grant for the windows after it. The limit is the one in force at the
-- window's end, and what open holds have of the window is used. Whoever makes or changes these grants has locked their budget (R6).

-- The id of the grant of what the window at p_window_start left. It follows from the window, so there is one.
CREATE OR REPLACE FUNCTION earmark.rollover_id(p_budget_id text, p_window_start timestamptz) RETURNS text LANGUAGE plpgsql IMMUTABLE AS $$
BEGIN
    RETURN 'grt_' || earmark.base32(sha256(convert_to(concat_ws(' ', p_budget_id, 'rollover', (extract(epoch FROM p_window_start) * 1000000)::bigint), 'UTF8')));
END $$;

-- The limit of b, which does not have its template's changes yet, that was in force at p_at.
CREATE OR REPLACE FUNCTION earmark.limit_at(b earmark.budgets, p_at timestamptz) RETURNS bigint LANGUAGE plpgsql STABLE AS $$
DECLARE
    r earmark.template_revisions;
BEGIN
    IF b.template_id IS NOT NULL AND b.revision IS NOT NULL THEN
        FOR r IN SELECT * FROM earmark.template_revisions
                 WHERE template_id = b.template_id AND revision > b.revision AND created_at <= p_at ORDER BY revision DESC LOOP
            IF NOT r.next_window OR (earmark.window_at(b, r.created_at)).window_end <= p_at THEN
                b.limit_amount := r.limit_amount;
                EXIT;
            END IF;
        END LOOP;
    END IF;
    b.template_id := NULL;
    RETURN (earmark.in_force(b, p_at)).limit_amount;
END $$;

-- What the rollover grants of a budget that are in force at p_at have left.
CREATE OR REPLACE FUNCTION earmark.rolled_over(p_budget_id text, p_at timestamptz) RETURNS numeric LANGUAGE plpgsql STABLE AS $$
BEGIN
    RETURN (SELECT coalesce(sum(amount - voided - reserved - committed), 0) FROM earmark.grants g
            WHERE budget_id = p_budget_id AND rolled_from IS NOT NULL AND effective_at <= p_at AND earmark.lasts(g, p_at));
END $$;

-- The grants that a budget makes when its window of p_at opens: of each window since the last opening, but of no more than can
-- still be in force. None if that window has opened. With t, they are those of a moment to come: t is the budget as it is now,
-- and with p_freed nothing is held any more.
CREATE OR REPLACE FUNCTION earmark.rollover_due(p_budget_id text, p_at timestamptz, t earmark.affected_budget DEFAULT NULL, p_freed boolean DEFAULT false)
    RETURNS SETOF earmark.grants LANGUAGE plpgsql STABLE AS $$
DECLARE
    b         earmark.budgets;
    g         earmark.grants;
    w         record;
    v_windows integer;
    v_starts  timestamptz[] := '{}';
    v_ends    timestamptz[] := '{}';
    v_made    earmark.grants[] := '{}';
    v_used    record; -- of the window's own limit
BEGIN
    SELECT * INTO b FROM earmark.budgets WHERE id = p_budget_id AND archived_at IS NULL;
    IF b.rolled_until IS NULL THEN
        RETURN;
    END IF;
    v_windows := b.rollover ->> 'windows';
    w := earmark.window_at(b, p_at);
    WHILE cardinality(v_starts) < v_windows AND w.window_start > b.rolled_until LOOP
        w := earmark.window_at(b, w.window_start - interval '1 microsecond');
        EXIT WHEN w.window_start < b.rolled_until;
        v_starts := w.window_start || v_starts;
        v_ends := w.window_end || v_ends;
    END LOOP;
    FOR i IN 1 .. cardinality(v_starts) LOOP
        SELECT x.reserved - x.granted_reserved AS reserved, x.committed - x.granted_committed AS committed INTO v_used FROM earmark.windows x
        WHERE x.budget_id = b.id AND x.window_start = v_starts[i];
        IF v_starts[i] = t.window_start THEN -- without holds that are overdue
            v_used.reserved := t.reserved - coalesce(t.granted_reserved, 0);
        END IF;
        g.rolled_left := earmark.limit_at(b, v_ends[i] - interval '1 microsecond') - coalesce(v_used.committed, 0)
            - CASE WHEN p_freed THEN 0 ELSE coalesce(v_used.reserved, 0) END; -- mutation: holds-not-rolled-over
        g.amount := least(greatest(g.rolled_left, 0), (b.rollover ->> 'max')::bigint); -- mutation: rollover-max
        IF b.rollover ? 'max_total' THEN -- mutation: rollover-total
            g.amount := least(g.amount, greatest(0, (b.rollover ->> 'max_total')::bigint - earmark.rolled_over(b.id, v_ends[i])
                - (SELECT coalesce(sum(m.amount), 0) FROM unnest(v_made) AS m WHERE m.expires_at > v_ends[i])));
        END IF;
        g.expires_at := v_ends[i];
        FOR n IN 1 .. v_windows LOOP
            SELECT window_end INTO g.expires_at FROM earmark.window_at(b, g.expires_at); -- mutation: rollover-expires
        END LOOP;
        g.id := earmark.rollover_id(b.id, v_starts[i]);
        g.tenant := b.tenant;
        g.budget_id := b.id;
        g.request_hash := '';
        g.reserved := 0;
        g.committed := 0;
        g.voided := 0;
        g.priority := 50; -- as a grant that is made without one
        g.effective_at := v_ends[i];
        g.expiry_noted := false;
        g.expiring_noted := g.expires_at < g.effective_at + interval '192 hours'; -- no event announces the end of what is there for hardly longer than the notice
        g.rolled_from := v_starts[i];
        g.reason := 'left of the window of ' || to_char(v_starts[i] AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"');
        g.created_at := clock_timestamp();
        v_made := v_made || g;
        RETURN NEXT g;
    END LOOP;
END $$;

-- The sum of these.
CREATE OR REPLACE FUNCTION earmark.rollover_due_sum(p_budget_id text, p_at timestamptz, t earmark.affected_budget DEFAULT NULL, p_freed boolean DEFAULT false)
    RETURNS numeric LANGUAGE plpgsql STABLE AS $$
BEGIN
    RETURN (SELECT coalesce(sum(amount), 0) FROM earmark.rollover_due(p_budget_id, p_at, t, p_freed));
END $$;

-- The starts of the windows that have rolled over into grants in force at p_at, or are to.
CREATE OR REPLACE FUNCTION earmark.rolled_windows(p_budget_id text, p_at timestamptz) RETURNS SETOF timestamptz LANGUAGE plpgsql STABLE AS $$
BEGIN
    RETURN QUERY SELECT rolled_from FROM earmark.grants g
                 WHERE budget_id = p_budget_id AND rolled_from IS NOT NULL AND earmark.lasts(g, p_at)
                 UNION ALL SELECT rolled_from FROM earmark.rollover_due(p_budget_id, p_at);
END $$;

-- What the rollover grant g is of when nothing is held any more, neither of its window nor of the grant; but for max_total, which depends on
-- what is used meanwhile.
CREATE OR REPLACE FUNCTION earmark.rolled_then(g earmark.grants) RETURNS numeric LANGUAGE plpgsql STABLE AS $$
DECLARE
    v_max  bigint;
    v_held numeric := 0; -- of its window, which adds to it if the budget still rolls over
BEGIN
    SELECT (b.rollover ->> 'max')::bigint, w.reserved - w.granted_reserved INTO v_max, v_held
    FROM earmark.budgets b JOIN earmark.windows w ON w.budget_id = b.id
    WHERE b.id = g.budget_id AND w.window_start = g.rolled_from AND b.rolled_until IS NOT NULL;
    RETURN greatest(g.committed + g.voided, least(g.amount + coalesce(v_held, 0), g.rolled_left + coalesce(v_held, 0), greatest(v_max, g.amount)));
END $$;

-- The ends of the windows after the one that ends at p_end, as long as windows before them add to what is rolled over.
CREATE OR REPLACE FUNCTION earmark.rollover_ends(b earmark.budgets, p_end timestamptz) RETURNS SETOF timestamptz LANGUAGE plpgsql STABLE AS $$
BEGIN
    FOR n IN 2 .. coalesce((b.rollover ->> 'windows')::integer, 0) LOOP
        SELECT window_end INTO p_end FROM earmark.window_at(b, p_end);
        RETURN NEXT p_end;
    END LOOP;
END $$;

-- Makes the grants that are due when the window of p_at opens, once, and returns the budget, whose row the caller has locked,
-- and their sum.
CREATE OR REPLACE FUNCTION earmark.roll_over(INOUT b earmark.budgets, p_at timestamptz, p_actor text, OUT rolled numeric) LANGUAGE plpgsql AS $$
DECLARE
    g       earmark.grants;
    v_start timestamptz := (earmark.window_at(b, p_at)).window_start;
BEGIN
    rolled := 0;
    IF (v_start > b.rolled_until) IS NOT TRUE THEN
        RETURN;
    END IF;
    FOR g IN SELECT * FROM earmark.rollover_due(b.id, p_at) LOOP
        INSERT INTO earmark.grants SELECT g.*;
        PERFORM earmark.note('budget', b.tenant, NULL, b.id, p_actor, earmark.grant_words(g) || ': ' || g.reason);
        rolled := rolled + g.amount;
    END LOOP;
    UPDATE earmark.budgets SET rolled_until = v_start, granted_until = greatest(granted_until, g.expires_at) WHERE id = b.id RETURNING * INTO b; -- mutation: rolled-over-once
END $$;

-- Follows a settlement by which the window at p_window_start, which has rolled over, has p_by more left (less if negative): what
-- comes free is granted as it would have been at the opening, and what is charged is taken back as far as nothing has used it.
CREATE OR REPLACE FUNCTION earmark.roll_settled(b earmark.budgets, p_window_start timestamptz, p_by numeric, p_actor text) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
    g        earmark.grants;
    v_now    timestamptz := clock_timestamp();
    v_amount numeric;
BEGIN
    SELECT * INTO g FROM earmark.grants WHERE id = earmark.rollover_id(b.id, p_window_start);
    IF NOT FOUND OR least(g.expires_at, g.voided_at, 'infinity') <= v_now THEN
        RETURN;
    END IF;
    g.rolled_left := greatest(-9223372036854775807, least(9223372036854775807, g.rolled_left + p_by));
    IF p_by > 0 THEN
        v_amount := least(g.amount + p_by, g.rolled_left, (b.rollover ->> 'max')::bigint); -- mutation: rolled-over-later
        IF b.rollover ? 'max_total' THEN
            v_amount := least(v_amount, g.amount + (b.rollover ->> 'max_total')::bigint - earmark.rolled_over(b.id, v_now));
        END IF;
        v_amount := greatest(v_amount, g.amount);
    ELSE
        v_amount := least(g.amount, greatest(g.rolled_left, g.reserved + g.committed)); -- mutation: rolled-over-taken-back
    END IF;
    UPDATE earmark.grants SET rolled_left = g.rolled_left, amount = v_amount WHERE id = g.id;
    IF v_amount <> g.amount THEN
        PERFORM earmark.note('budget', b.tenant, NULL, b.id, p_actor, format('%s is now of %s: a reservation of its window was settled', earmark.grant_words(g), v_amount));
        IF v_amount > g.amount THEN
            UPDATE earmark.denials SET exhausted_in = NULL WHERE budget_id = b.id; -- as after a grant
        END IF;
    END IF;
END $$;

-- Follows a settlement of the share s, by which grants of what rolled over have back what kept late usage of their own window from
-- taking them back: nothing has used that after all.
CREATE OR REPLACE FUNCTION earmark.roll_given_back(s earmark.reservation_budgets, p_actor text) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
    g        earmark.grants;
    v_amount bigint;
BEGIN
    FOR g IN SELECT x.* FROM earmark.reservation_grants y JOIN earmark.grants x ON x.id = y.grant_id
             WHERE y.reservation_id = s.reservation_id AND y.budget_id = s.budget_id
               AND x.rolled_from IS NOT NULL AND x.amount > greatest(x.rolled_left, x.reserved + x.committed + x.voided) LOOP
        v_amount := greatest(g.rolled_left, g.reserved + g.committed + g.voided);
        UPDATE earmark.grants SET amount = v_amount WHERE id = g.id;
        PERFORM earmark.note('budget', g.tenant, NULL, s.budget_id, p_actor, format('%s is now of %s: what held it was given back', earmark.grant_words(g), v_amount));
    END LOOP;
END $$;
