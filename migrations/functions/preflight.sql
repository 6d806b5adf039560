-- Reads that answer a request without reserving anything.

DROP FUNCTION IF EXISTS earmark.decide(text, text[], jsonb, boolean); -- without p_require_budget: calls would be ambiguous
DROP FUNCTION IF EXISTS earmark.preflight(text, text, text, text[], jsonb, boolean); -- without p_require_budget

-- Whether p_amounts would fit now, without a lock and without a change: 'applied',
-- 'denied', 'no_budget', 'unit_not_budgeted' or 'overflow'. Only earmark.reserve admits.
-- Overdue 'release' reservations do not count, because an admission would expire them. What templates would give counts.
CREATE OR REPLACE FUNCTION earmark.decide(p_tenant text, p_scopes text[], p_amounts jsonb, p_any_scope boolean DEFAULT false,
    p_require_budget boolean DEFAULT false) RETURNS jsonb
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    v_affected earmark.affected_budget[];
    v_answer  jsonb;
    v_now     timestamptz := clock_timestamp();
    v_overdue bigint;
    v_holds   bigint;
    v_ids     text[];
    v_past    timestamptz[];
    v_paths   text[];
    v_units   text[];
BEGIN
    v_paths := earmark.scope_paths(p_scopes);
    v_units := earmark.units(p_amounts);
    SELECT array_agg(CASE WHEN b.granted_until IS NULL THEN t ELSE earmark.with_grants(t, b, v_now, g.reserved, g.committed) END ORDER BY b.id)
    INTO v_affected
    FROM (SELECT x FROM earmark.budgets x
          WHERE x.tenant = p_tenant AND x.archived_at IS NULL AND x.scope = ANY (v_paths) AND x.unit = ANY (v_units)
          UNION ALL
          SELECT x FROM earmark.missing_children((earmark.templates_of(p_tenant, v_paths, v_units)).templates, v_paths) AS x) AS met -- mutation: children-decided
         CROSS JOIN LATERAL earmark.in_force(x, v_now) b CROSS JOIN LATERAL earmark.window_at(b, v_now) w
         CROSS JOIN LATERAL earmark.granted_in(b, w.window_start) g
         CROSS JOIN LATERAL earmark.affect(b, w.window_start, w.window_end, w.reserved, w.committed) t;

    v_answer := earmark.check_coverage(p_tenant, p_scopes, v_units, v_affected, p_any_scope, p_require_budget);
    IF v_answer IS NOT NULL THEN
        RETURN v_answer;
    END IF;
    v_answer := earmark.check_fit(v_affected, p_amounts, v_now);
    IF v_answer IS NOT NULL THEN
        FOR i IN 1 .. cardinality(v_affected) LOOP
            SELECT coalesce(sum(reserved), 0), count(*), array_agg(reservation_id) INTO v_overdue, v_holds, v_ids FROM (
                SELECT s.reserved, s.reservation_id FROM earmark.counted_windows(v_affected[i]) AS w CROSS JOIN LATERAL (
                    SELECT x.reserved, x.reservation_id FROM earmark.reservation_budgets x
                    WHERE x.budget_id = v_affected[i].budget_id AND x.window_start = w
                      AND x.frees_on_expiry AND x.overdue_at < v_now AND x.reserved > 0
                    ORDER BY x.overdue_at LIMIT earmark.max_blocking_holds()) AS s
                LIMIT earmark.max_blocking_holds()
            ) AS in_the_way;
            v_affected[i].reserved := v_affected[i].reserved - v_overdue;
            IF v_affected[i].grants_left IS NOT NULL AND v_holds > 0 THEN
                v_affected[i] := earmark.without_holds(v_affected[i], v_ids, v_now);
            END IF;
            v_past[i] := CASE WHEN v_holds < earmark.max_blocking_holds() THEN v_now END; -- otherwise more may be overdue
        END LOOP;
        v_answer := earmark.check_fit(v_affected, p_amounts, v_now, v_past);
    END IF;
    RETURN coalesce(v_answer, jsonb_build_object('outcome', 'applied'));
END $$;

-- Whether an amount plainly fits into a budget that has more to look at than its ceiling. p_counted is what counts in its window, p_granted what
-- grants bear of that. An override or a change of the template needs earmark.decide.
CREATE OR REPLACE FUNCTION earmark.fits_plainly(p_amount numeric, p_counted bigint, p_granted bigint, p_ceiling bigint, p_budget_id text,
    p_overridden_until timestamptz, p_template_id text, p_revision bigint, p_granted_until timestamptz, p_rolled_until timestamptz, p_at timestamptz) RETURNS boolean
LANGUAGE plpgsql STABLE AS $$
BEGIN
    IF p_overridden_until > p_at OR p_template_id IS NOT NULL AND earmark.is_behind(p_template_id, p_revision) THEN
        RETURN false;
    END IF;
    RETURN p_amount + p_counted <= coalesce(p_ceiling, 9223372036854775807)
        OR p_granted_until > p_at AND p_amount + p_counted - p_granted <= p_ceiling + earmark.grants_left(p_budget_id, p_granted_until, p_rolled_until, p_at)::numeric;
END $$;

-- The one read before an admission: the existing row, or the result of earmark.decide; and
-- the time, from which deadlines are counted. If the request plainly fits, the balances are
-- read once; of a rolling window there are too many to do so.
CREATE OR REPLACE FUNCTION earmark.preflight(p_id text, p_tenant text, p_hash text, p_scopes text[], p_amounts jsonb, p_any_scope boolean DEFAULT false,
    p_require_budget boolean DEFAULT false) RETURNS jsonb
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp SET plan_cache_mode = 'force_generic_plan' SET enable_seqscan = off AS $$
DECLARE
    v_answer    jsonb;
    v_now       timestamptz := clock_timestamp();
    v_paths     text[] := earmark.scope_paths(p_scopes);
    v_fits      boolean;
    v_units     text[];
    v_templates boolean; -- whether one is meant for these scopes
    v_exists    boolean; -- whether p_id does
BEGIN
    -- Plain budgets are compared in the query. What only others need is in a function: each call prepares the whole query.
    SELECT bool_and(b.period <> 'rolling' AND CASE WHEN num_nulls(b.overridden_until, b.template_id, b.granted_until) = 3
               THEN (p_amounts ->> b.unit)::numeric + coalesce(w.counted, 0) <= coalesce(earmark.ceiling(b), 9223372036854775807)
               ELSE earmark.fits_plainly((p_amounts ->> b.unit)::numeric, coalesce(w.counted, 0), coalesce(w.granted, 0), earmark.ceiling(b), b.id,
                        b.overridden_until, b.template_id, b.revision, b.granted_until, b.rolled_until, v_now) END),
           array_agg(b.unit),
           EXISTS (SELECT FROM earmark.budgets t WHERE t.tenant = p_tenant AND earmark.is_template(t.scope) AND t.archived_at IS NULL
                     AND t.scope = ANY (earmark.template_scopes(v_paths))),
           EXISTS (SELECT FROM earmark.reservations r WHERE r.id = p_id)
    INTO v_fits, v_units, v_templates, v_exists
    FROM earmark.budgets b LEFT JOIN LATERAL ( -- as earmark.window_at finds it; the bounds are of no interest here
        SELECT CASE WHEN x.window_end <= v_now THEN 0 ELSE x.reserved + x.committed END AS counted,
               CASE WHEN x.window_end <= v_now THEN 0 ELSE x.granted_reserved + x.granted_committed END AS granted
        FROM earmark.windows x WHERE x.budget_id = b.id AND x.window_start <= v_now ORDER BY x.window_start DESC LIMIT 1) w ON true
    WHERE b.tenant = p_tenant AND b.archived_at IS NULL AND b.scope = ANY (v_paths) AND p_amounts ? b.unit;
    IF v_exists THEN
        v_answer := earmark.existing_result(p_id, p_tenant, p_hash);
    ELSIF v_fits AND p_amounts - v_units = '{}' AND cardinality(p_scopes) = 1 AND NOT p_require_budget
        AND (NOT v_templates OR NOT (earmark.templates_of(p_tenant, v_paths, v_units)).is_missing) THEN
        RETURN jsonb_build_object('outcome', 'applied', 'now', clock_timestamp());
    ELSE
        v_answer := earmark.decide(p_tenant, p_scopes, p_amounts, p_any_scope, p_require_budget);
    END IF;
    RETURN v_answer || jsonb_build_object('now', clock_timestamp());
END $$;
