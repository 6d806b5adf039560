-- Admission: sets amounts aside for a new reservation.

DROP FUNCTION IF EXISTS earmark.check_coverage(text, text[], text[], earmark.affected_budget[], boolean); -- without p_own: calls would be ambiguous

-- Returns the first scope that no budget covers, or else the first unit that no budget
-- counts: on each scope, or with p_any_scope on any scope. Null if all are covered. With
-- p_own only a budget on a scope itself covers it, and none above it. What a template gives it counts.
CREATE OR REPLACE FUNCTION earmark.check_coverage(p_tenant text, p_scopes text[], p_units text[], p_affected earmark.affected_budget[],
    p_any_scope boolean, p_own boolean DEFAULT false) RETURNS jsonb
LANGUAGE plpgsql STABLE AS $$
DECLARE
    v_subject text;
    v_scope   text;
BEGIN
    SELECT scope INTO v_subject FROM unnest(p_scopes) WITH ORDINALITY AS asked (scope, n)
    WHERE NOT EXISTS (SELECT 1 FROM unnest(p_affected) t WHERE asked.scope = t.scope OR NOT p_own AND starts_with(asked.scope, t.scope || '/'))
      AND NOT EXISTS (SELECT 1 FROM earmark.budgets b
                      WHERE b.tenant = p_tenant AND b.archived_at IS NULL
                        AND b.scope = ANY (earmark.with_templates(CASE WHEN p_own THEN ARRAY [asked.scope] ELSE earmark.scope_paths(ARRAY [asked.scope]) END)))
    ORDER BY n LIMIT 1;
    IF FOUND THEN
        RETURN jsonb_build_object('outcome', 'no_budget', 'subject', v_subject);
    END IF;
    SELECT unit, scope INTO v_subject, v_scope FROM unnest(p_scopes) WITH ORDINALITY AS asked (scope, n), unnest(p_units) AS unit
    WHERE NOT EXISTS (SELECT 1 FROM unnest(p_affected) t
                      WHERE t.unit = unit.unit AND (asked.scope = t.scope
                            OR NOT p_own AND (p_any_scope OR starts_with(asked.scope, t.scope || '/'))
                            OR p_own AND p_any_scope AND t.scope = ANY (p_scopes)))
    ORDER BY n, unit LIMIT 1;
    IF FOUND THEN
        RETURN jsonb_build_object('outcome', 'unit_not_budgeted', 'subject', v_subject, 'scope', v_scope);
    END IF;
    RETURN NULL;
END $$;

-- The end of the first lease of a hold on a window; null without a hold. Leaves out holds
-- that free their amount and were overdue before p_past. Reads two index entries, however
-- many holds there are; for min() the planner may read them all.
CREATE OR REPLACE FUNCTION earmark.first_lease_end(p_budget_id text, p_window_start timestamptz, p_past timestamptz) RETURNS timestamptz
LANGUAGE plpgsql STABLE AS $$
BEGIN
    RETURN least(
        (SELECT overdue_at FROM earmark.reservation_budgets
         WHERE budget_id = p_budget_id AND window_start = p_window_start AND frees_on_expiry AND overdue_at >= p_past AND reserved > 0
         ORDER BY overdue_at LIMIT 1),
        (SELECT overdue_at FROM earmark.reservation_budgets
         WHERE budget_id = p_budget_id AND window_start = p_window_start AND NOT frees_on_expiry AND overdue_at IS NOT NULL AND reserved > 0
         ORDER BY overdue_at LIMIT 1));
END $$;

DROP FUNCTION IF EXISTS earmark.may_fit_at(earmark.affected_budget, numeric, timestamptz); -- with a clock of its own

-- The first moment at which p_requested, which does not fit into t as it is at p_at, may fit: the end of the first lease, if it fits
-- without the holds; the begin or end of an override or a grant that makes room; or the end of the window, if it fits into
-- an empty one. Slices leave a rolling window one by one, and each makes room. Null if it fits at none of them, without
-- another call. It may be over: what makes room after p_at may have come while the call waited. A change of a template that waits for the next
-- window counts from there on. p_past is as for first_lease_end.
CREATE OR REPLACE FUNCTION earmark.may_fit_at(t earmark.affected_budget, p_requested numeric, p_at timestamptz, p_past timestamptz) RETURNS timestamptz
LANGUAGE plpgsql STABLE AS $$
DECLARE
    c_moments CONSTANT integer := 200; -- of the slices, overrides and grants of one budget, so that a denial stays cheap
    b         earmark.budgets;
    v_lease   timestamptz;
    v_earlier timestamptz; -- the end of the first lease of a hold that an earlier window has against a grant, or of what it rolled over
    v_then    earmark.budgets;
    v_at      timestamptz;
    v_used    numeric;
    v_ceiling bigint;  -- then; null if there is none
    v_left    numeric; -- of the grants in force then
BEGIN
    SELECT * INTO b FROM earmark.budgets WHERE id = t.budget_id;
    IF b.overridden_until > p_at OR t.slice IS NOT NULL OR t.grants_left IS NOT NULL OR earmark.is_behind(b.template_id, b.revision) THEN
        v_lease := (SELECT min(earmark.first_lease_end(t.budget_id, w, p_past)) FROM earmark.counted_windows(t) AS w);
        IF t.grants_left IS NOT NULL THEN
            v_earlier := (SELECT min(s.overdue_at) FROM earmark.reservation_grants x
                          JOIN earmark.reservation_budgets s ON s.reservation_id = x.reservation_id AND s.budget_id = x.budget_id
                          WHERE x.budget_id = b.id AND x.window_start < t.window_start AND x.reserved > 0);
        END IF;
        IF b.rolled_until IS NOT NULL THEN
            v_earlier := least(v_earlier, (SELECT min(earmark.first_lease_end(b.id, w, '-infinity')) FROM earmark.rolled_windows(b.id, p_at) AS w)); -- mutation: retry-after-rolled-hold
        END IF;
        FOR v_at IN
            SELECT moment FROM (
                SELECT t.window_end AS moment WHERE t.slice IS NULL
                UNION SELECT w.window_end + t.slice * earmark.slices_before() FROM earmark.windows w
                WHERE w.budget_id = b.id AND w.window_start >= t.window_start - t.slice * earmark.slices_before() AND w.reserved + w.committed > 0
                UNION SELECT v_lease UNION SELECT v_earlier
                UNION SELECT earmark.rollover_ends(b, t.window_end) WHERE b.rolled_until IS NOT NULL
                UNION SELECT unnest(ARRAY [effective_at, least(expires_at, ended_at)]) FROM earmark.overrides
                WHERE budget_id = b.id AND least(expires_at, ended_at, 'infinity') > p_at
                UNION SELECT effective_at FROM earmark.grants
                WHERE budget_id = b.id AND effective_at > p_at AND voided_at IS NULL) AS m
            WHERE moment > p_at OR moment IN (v_lease, v_earlier) ORDER BY moment LIMIT c_moments
        LOOP
            v_then := earmark.in_force(b, greatest(v_at, p_at)); -- the first lease may have ended
            v_left := CASE WHEN t.grants_left IS NULL THEN 0 ELSE earmark.grants_left_then(t, greatest(v_at, p_at), v_at >= least(v_lease, v_earlier), p_past) END;
            IF b.rolled_until IS NOT NULL THEN
                v_left := v_left + earmark.rollover_due_sum(b.id, greatest(v_at, p_at), t, coalesce(v_at >= least(v_lease, v_earlier), false));
            END IF;
            v_used := CASE
                WHEN t.slice IS NOT NULL THEN
                    (SELECT coalesce(sum(w.committed::numeric + CASE WHEN v_at >= v_lease THEN 0 ELSE w.reserved END), 0) FROM earmark.windows w
                     WHERE w.budget_id = b.id AND w.window_start >= t.window_start - t.slice * earmark.slices_before()
                       AND w.window_end + t.slice * earmark.slices_before() > v_at)
                WHEN v_at >= t.window_end THEN 0
                ELSE t.committed::numeric - coalesce(t.granted_committed, 0)
                     + CASE WHEN v_at >= v_lease THEN 0 ELSE t.reserved - coalesce(t.granted_reserved, 0) END END;
            v_ceiling := earmark.ceiling(v_then);
            IF v_ceiling IS NULL OR p_requested + v_used <= v_ceiling + v_left THEN
                RETURN v_at;
            END IF;
        END LOOP;
        RETURN NULL;
    ELSIF p_requested + t.committed <= t.ceiling THEN
        RETURN least(t.window_end, earmark.first_lease_end(t.budget_id, t.window_start, p_past));
    ELSIF p_requested <= t.ceiling THEN
        RETURN t.window_end;
    END IF;
    RETURN NULL;
END $$;

DROP FUNCTION IF EXISTS earmark.check_fit(earmark.affected_budget[], jsonb, timestamptz[]); -- without p_at

-- Whether p_amounts fit into p_affected: a 'denied' or 'overflow' answer, or null if they
-- fit. This is the rule that denies. Sums are numeric here, so that none can overflow (R8).
--
-- retry_at of a denial is the moment to ask again at the latest. For each budget that the
-- amounts do not fit into, it is the first moment at which they may; retry_at is the latest of
-- them. It is null, and retryable false, if one of the budgets has none. p_at is the moment whose limits p_affected has. p_past says for each
-- budget which overdue holds do not count.
CREATE OR REPLACE FUNCTION earmark.check_fit(p_affected earmark.affected_budget[], p_amounts jsonb, p_at timestamptz, p_past timestamptz[] DEFAULT NULL) RETURNS jsonb
LANGUAGE plpgsql STABLE AS $$
DECLARE
    t            earmark.affected_budget;
    v_requested  numeric;
    v_violations jsonb := '[]';
    v_retryable  boolean := true;
    v_change_at  timestamptz;
    v_retry_at   timestamptz := clock_timestamp();
BEGIN
    FOR i IN 1 .. coalesce(cardinality(p_affected), 0) LOOP
        t := p_affected[i];
        v_requested := (p_amounts ->> t.unit)::numeric;
        IF t.ceiling IS NULL THEN
            IF v_requested + t.reserved + t.committed + t.other_reserved + t.other_committed > 9223372036854775807 THEN
                RETURN jsonb_build_object('outcome', 'overflow', 'subject', t.unit);
            END IF;
        ELSIF v_requested + t.reserved + t.committed > t.ceiling THEN
            v_violations := v_violations || jsonb_build_object('budget_id', t.budget_id, 'scope', t.scope, 'unit', t.unit,
                'limit', t.ceiling + t.other_reserved + t.other_committed,
                'reserved', t.reserved + t.other_reserved, 'committed', t.committed + t.other_committed,
                'available', t.ceiling::numeric - t.reserved - t.committed, 'requested', v_requested);
            v_change_at := earmark.may_fit_at(t, v_requested, p_at, coalesce(p_past[i], '-infinity'));
            v_retryable := v_retryable AND v_change_at IS NOT NULL;
            v_retry_at := greatest(v_retry_at, v_change_at);
        END IF;
    END LOOP;
    IF v_violations = '[]' THEN
        RETURN NULL;
    END IF;
    RETURN jsonb_build_object('outcome', 'denied', 'decision', jsonb_build_object('admitted', false, 'violations', v_violations,
        'retryable', v_retryable, 'retry_at', CASE WHEN v_retryable THEN v_retry_at END));
END $$;

DROP FUNCTION IF EXISTS earmark.reserve(text, text, text, text[], jsonb, bigint, text, jsonb, text, timestamptz, boolean, text, boolean, timestamptz); -- without p_require_budget

-- Sets p_amounts aside on every budget that covers one of p_scopes, or on none (R1, R2). With
-- p_require_budget each scope needs a budget of its own.
-- One moment selects the windows and is the reservation's created_at, however long the
-- locks take: p_at, or by default the start of the call. Overdue holds that make way are expired by p_actor without the caller's key,
-- which has nothing to do with them.
CREATE OR REPLACE FUNCTION earmark.reserve(p_id text, p_tenant text, p_hash text, p_scopes text[], p_amounts jsonb, p_ttl_ms bigint, p_on_expiry text,
    p_metadata jsonb, p_workflow_id text, p_admit_by timestamptz, p_released boolean, p_actor text, p_any_scope boolean DEFAULT false,
    p_at timestamptz DEFAULT NULL, p_require_budget boolean DEFAULT false) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET lock_timeout = '1s' SET plan_cache_mode = 'force_generic_plan' SET enable_seqscan = off AS $$
DECLARE
    t            earmark.affected_budget;
    r            earmark.reservations;
    v_affected    earmark.affected_budget[];
    v_answer     jsonb;
    v_amount     numeric; -- numeric, so that no sum overflows (R8)
    v_missing    jsonb := p_amounts;
    v_fits       boolean := true;
    v_over_limit boolean := false;
    v_granted    boolean := false;
    v_held       bigint; -- on grants
    v_at         timestamptz := coalesce(p_at, clock_timestamp());
BEGIN
    IF p_released THEN -- mutation: released-first
        -- Keeps a row, so that an attempt that is still under way cannot reserve
        -- afterwards.
        INSERT INTO earmark.reservations (id, tenant, state, request_hash, scopes, amounts, on_expiry, metadata, workflow_id, expires_at, settled_at, reason)
        VALUES (p_id, p_tenant, 'released', p_hash, p_scopes, p_amounts, p_on_expiry, p_metadata, p_workflow_id,
                clock_timestamp() + p_ttl_ms * interval '1 millisecond', clock_timestamp(), 'released before it was reserved')
        ON CONFLICT DO NOTHING RETURNING * INTO r;
        IF NOT FOUND THEN
            RETURN earmark.existing_result(p_id, p_tenant, p_hash);
        END IF;
        PERFORM earmark.note('release', p_tenant, p_id, NULL, p_actor, 'released before it was reserved');
        RETURN earmark.result('released', r);
    END IF;

    v_affected := earmark.lock_affected(p_tenant, p_scopes, p_amounts, v_at, p_actor => p_actor);
    -- An earlier attempt with this id may have been admitted, before this call or while it waited. It answers before every
    -- refusal, and otherwise instead of the insert below.
    IF clock_timestamp() > p_admit_by THEN -- mutation: admit-by
        RETURN coalesce(earmark.existing_result(p_id, p_tenant, p_hash), jsonb_build_object('outcome', 'too_late'));
    END IF;
    FOREACH t IN ARRAY coalesce(v_affected, '{}') LOOP
        v_amount := (p_amounts ->> t.unit)::numeric;
        v_fits := v_fits AND v_amount + t.reserved + t.committed <= coalesce(t.ceiling, 9223372036854775807 - t.other_reserved - t.other_committed);
        v_over_limit := v_over_limit OR v_amount + t.reserved + t.committed > t.limit_amount - t.other_reserved - t.other_committed;
        v_granted := v_granted OR t.grants_left IS NOT NULL;
        v_missing := v_missing - t.unit;
    END LOOP;
    -- One scope with an affected budget is covered; several scopes must be checked one by
    -- one, and so must a scope that needs a budget of its own.
    IF v_missing <> '{}' OR cardinality(p_scopes) > 1 OR p_require_budget THEN -- mutation: coverage
        v_answer := earmark.check_coverage(p_tenant, p_scopes, earmark.units(p_amounts), v_affected, p_any_scope, p_require_budget); -- mutation: own-budget
        IF v_answer IS NOT NULL THEN
            RETURN coalesce(earmark.existing_result(p_id, p_tenant, p_hash), v_answer);
        END IF;
    END IF;
    IF NOT v_fits THEN -- mutation: fit
        v_answer := earmark.existing_result(p_id, p_tenant, p_hash);
        IF v_answer IS NOT NULL THEN
            RETURN v_answer;
        END IF;
        v_answer := earmark.check_fit(v_affected, p_amounts, v_at);
        IF earmark.expire_blocking_holds(v_affected, split_part(p_actor, ' ', 1)) > 0 THEN -- mutation: blocking-holds
            v_affected := earmark.lock_windows(v_affected, v_at);
            v_answer := earmark.check_fit(v_affected, p_amounts, v_at);
            v_over_limit := EXISTS (SELECT 1 FROM unnest(v_affected) u WHERE (p_amounts ->> u.unit)::numeric + u.reserved + u.committed > u.limit_amount - u.other_reserved - u.other_committed);
        END IF;
        IF v_answer IS NOT NULL THEN
            RETURN v_answer;
        END IF;
    END IF;

    -- A row that is there is read: the conflict alone would wait for whoever changes it, with the locks of budgets (R6).
    INSERT INTO earmark.reservations (id, tenant, state, request_hash, scopes, amounts, on_expiry, metadata, workflow_id, created_at, expires_at, over_limit, granted)
    SELECT p_id, p_tenant, 'held', p_hash, p_scopes, p_amounts, p_on_expiry, p_metadata, p_workflow_id, v_at, -- mutation: one-moment
           clock_timestamp() + p_ttl_ms * interval '1 millisecond', v_over_limit, v_granted
    WHERE NOT EXISTS (SELECT FROM earmark.reservations WHERE id = p_id) -- mutation: existing-read
    ON CONFLICT DO NOTHING RETURNING * INTO r;
    IF NOT FOUND THEN -- an earlier attempt, or a concurrent call made the same id for other budgets
        RETURN earmark.existing_result(p_id, p_tenant, p_hash);
    END IF;
    FOREACH t IN ARRAY v_affected LOOP -- mutation: all-budgets
        v_held := CASE WHEN t.grants_left > 0 AND (p_amounts ->> t.unit)::bigint > t.own_room
                       THEN earmark.hold_on_grants(t, p_id, (p_amounts ->> t.unit)::bigint - t.own_room) ELSE 0 END;
        PERFORM earmark.post(p_kind => 'reserve', p_tenant => p_tenant, p_reservation_id => p_id, p_budget_id => t.budget_id, p_window_start => t.window_start,
            p_reserved_delta => (p_amounts ->> t.unit)::bigint, p_committed_delta => 0, p_actor => p_actor, p_reason => '',
            p_unit => t.unit, p_overdue_at => r.expires_at, p_frees_on_expiry => p_on_expiry = 'release', p_ceiling => t.ceiling, p_granted => v_held);
        IF t.grants_left IS NOT NULL AND t.window_end <= clock_timestamp() THEN -- the next window may have opened while this call waited
            PERFORM earmark.roll_settled(b, t.window_start, v_held - (p_amounts ->> t.unit)::numeric, p_actor) -- mutation: held-after-rollover
            FROM earmark.budgets b WHERE b.id = t.budget_id AND b.rolled_until > t.window_start;
        END IF;
    END LOOP;
    -- Of one budget it is plain what is read back.
    RETURN earmark.result('applied', r, CASE WHEN cardinality(v_affected) = 1 THEN jsonb_build_array(
        earmark.share_json(t.budget_id, t.scope, t.unit, t.window_start, (p_amounts ->> t.unit)::bigint, 0)) END);
END $$;

-- Reserves for several calls of one tenant in one transaction; the result of each is that
-- of earmark.reserve. A call may name its own actor. Takes all locks first, in order (R6), then decides each call in turn.
CREATE OR REPLACE FUNCTION earmark.reserve_batch(p_tenant text, p_calls jsonb, p_actor text) RETURNS SETOF jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET lock_timeout = '1s' SET plan_cache_mode = 'force_generic_plan' SET enable_seqscan = off AS $$
DECLARE
    c        record;
    v_scopes text[] := '{}';
    v_amounts jsonb := '{}'; -- of all units
    v_pairs  text[];
    v_at     timestamptz := clock_timestamp();
BEGIN
    FOR c IN SELECT * FROM jsonb_to_recordset(p_calls) AS x (scopes text[], amounts jsonb, released boolean) WHERE NOT released LOOP
        v_scopes := v_scopes || c.scopes;
        v_amounts := v_amounts || c.amounts;
    END LOOP;
    IF v_scopes <> '{}' THEN
        v_pairs := ARRAY (
            SELECT DISTINCT path || ' ' || unit
            FROM jsonb_to_recordset(p_calls) AS x (scopes text[], amounts jsonb, released boolean),
                 unnest(earmark.scope_paths(x.scopes)) AS path, jsonb_object_keys(x.amounts) AS unit
            WHERE NOT x.released);
        PERFORM earmark.lock_affected(p_tenant, v_scopes, v_amounts, v_at, v_pairs, p_actor, p_calls);
    END IF;
    FOR c IN SELECT * FROM jsonb_to_recordset(p_calls) AS x (id text, hash text, scopes text[], amounts jsonb, ttl_ms bigint, on_expiry text,
                                                             metadata jsonb, workflow_id text, admit_by timestamptz, released boolean,
                                                             any_scope boolean, actor text, require_budget boolean) LOOP
        RETURN NEXT earmark.reserve(c.id, p_tenant, c.hash, c.scopes, c.amounts, c.ttl_ms, c.on_expiry, c.metadata, c.workflow_id,
            c.admit_by, c.released, coalesce(c.actor, p_actor), coalesce(c.any_scope, false), v_at, coalesce(c.require_budget, false));
    END LOOP;
END $$;
