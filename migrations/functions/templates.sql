-- Templates: a budget on app/users/* gives each child of app/users a budget of its own, which is made when a call first
-- meets it. The template itself limits nothing. A child has the template's settings, and follows its changes until
-- somebody changes the child itself.
--
-- A change of a template writes one row, however many children there are: each child takes it over when its row is next
-- locked, and every read shows it before that (earmark.followed). No call locks a template to admit: a call that began
-- before the change ended may be decided by either.

CREATE OR REPLACE FUNCTION earmark.is_template(p_scope text) RETURNS boolean LANGUAGE sql IMMUTABLE AS $$ SELECT right(p_scope, 1) = '*' $$;

-- The scope of the templates that give p_scope a budget: 'app/users/ana' has app/users/*, and 'app' has *.
CREATE OR REPLACE FUNCTION earmark.template_scope(p_scope text) RETURNS text LANGUAGE sql IMMUTABLE AS $$
    SELECT CASE position('/' IN reverse(p_scope)) WHEN 0 THEN '*' ELSE left(p_scope, 1 - position('/' IN reverse(p_scope))) || '*' END
$$;

-- Those of several paths, in their order.
CREATE OR REPLACE FUNCTION earmark.template_scopes(p_paths text[]) RETURNS text[] LANGUAGE plpgsql IMMUTABLE AS $$
DECLARE
    v_path   text;
    v_scopes text[] := '{}';
BEGIN
    FOREACH v_path IN ARRAY p_paths LOOP
        v_scopes := v_scopes || earmark.template_scope(v_path);
    END LOOP;
    RETURN v_scopes;
END $$;

-- Scopes and those of the templates that give them a budget.
CREATE OR REPLACE FUNCTION earmark.with_templates(p_paths text[]) RETURNS text[] LANGUAGE plpgsql IMMUTABLE AS $$
BEGIN
    RETURN p_paths || earmark.template_scopes(p_paths);
END $$;

-- Whether p_scope has a budget of the template's unit and length of window: what the template made, or a child's own, which wins.
CREATE OR REPLACE FUNCTION earmark.has_child(t earmark.budgets, p_scope text) RETURNS boolean LANGUAGE plpgsql STABLE AS $$
BEGIN
    RETURN EXISTS (SELECT FROM earmark.budgets x WHERE x.tenant = t.tenant AND x.scope = p_scope AND x.unit = t.unit
                     AND x.period = t.period AND x.every = t.every AND x.archived_at IS NULL);
END $$;

DROP FUNCTION IF EXISTS earmark.templates_of(text, text[], text[], text[]); -- with other results
-- The templates that give one of p_paths a budget in one of p_units; and whether one of these does not exist. p_pairs is as for lock_affected.
CREATE OR REPLACE FUNCTION earmark.templates_of(p_tenant text, p_paths text[], p_units text[], p_pairs text[] DEFAULT NULL,
    OUT templates earmark.budgets[], OUT is_missing boolean)
LANGUAGE plpgsql STABLE AS $$
DECLARE
    v_scopes text[] := earmark.template_scopes(p_paths);
    t        earmark.budgets;
BEGIN
    is_missing := false;
    templates := ARRAY (
        SELECT x FROM earmark.budgets x
        WHERE x.tenant = p_tenant AND earmark.is_template(x.scope) AND x.archived_at IS NULL AND x.scope = ANY (v_scopes) AND x.unit = ANY (p_units));
    FOREACH t IN ARRAY templates LOOP
        FOR i IN 1 .. cardinality(p_paths) LOOP
            IF v_scopes[i] = t.scope AND (p_pairs IS NULL OR p_paths[i] || ' ' || t.unit = ANY (p_pairs)) THEN
                is_missing := is_missing OR NOT earmark.has_child(t, p_paths[i]);
            END IF;
        END LOOP;
    END LOOP;
END $$;

-- The key of the advisory lock on the budgets of a scope, which comes before every row (R6).
CREATE OR REPLACE FUNCTION earmark.child_key(p_tenant text, p_scope text) RETURNS bigint LANGUAGE sql IMMUTABLE AS $$
    SELECT hashtextextended('earmark.child ' || p_tenant || ' ' || p_scope, 0)
$$;

-- Keeps what templates give to p_paths from being archived until the transaction ends. So no call finds a child gone for which it waited
-- with the locks of other budgets: to make another one then would break the order of locks.
CREATE OR REPLACE FUNCTION earmark.keep_children(p_tenant text, p_paths text[]) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    v_key bigint;
BEGIN
    FOR v_key IN
        SELECT earmark.child_key(p_tenant, path) FROM unnest(p_paths) AS path
        WHERE EXISTS (SELECT FROM earmark.budgets x WHERE x.tenant = p_tenant AND earmark.is_template(x.scope) AND x.archived_at IS NULL
                        AND x.scope = earmark.template_scope(path))
        ORDER BY 1
    LOOP
        PERFORM pg_advisory_xact_lock_shared(v_key);
    END LOOP;
END $$;

-- Bytes in base32, without padding.
CREATE OR REPLACE FUNCTION earmark.base32(p_bytes bytea) RETURNS text LANGUAGE plpgsql IMMUTABLE AS $$
DECLARE
    v_digits integer := (length(p_bytes) * 8 + 4) / 5;
    v_bits   varbit := ('x' || encode(p_bytes, 'hex'))::varbit || repeat('0', v_digits * 5 - length(p_bytes) * 8)::varbit;
BEGIN
    RETURN (SELECT string_agg(substr('abcdefghijklmnopqrstuvwxyz234567', 1 + substring(v_bits FROM i * 5 + 1 FOR 5)::bit(5)::integer, 1), '' ORDER BY i)
            FROM generate_series(0, v_digits - 1) AS i);
END $$;

-- The id of the budget that a template makes on p_scope: `bud_` and the base32 of 16 bytes of a SHA-256. It depends on how many the template
-- made there before, which are archived; so a denial names the budget that a later admission makes.
CREATE OR REPLACE FUNCTION earmark.child_id(p_template_id text, p_scope text) RETURNS text LANGUAGE plpgsql STABLE AS $$
DECLARE
    v_id text;
BEGIN
    FOR n IN 0 .. 2147483646 LOOP
        v_id := 'bud_' || earmark.base32(substring(sha256(convert_to(concat_ws(' ', p_template_id, p_scope, n), 'UTF8')) FROM 1 FOR 16));
        EXIT WHEN NOT EXISTS (SELECT FROM earmark.budgets WHERE id = v_id AND archived_at IS NOT NULL);
    END LOOP;
    RETURN v_id;
END $$;

-- The budgets that p_templates give to p_paths and that do not exist, as they would be made now. p_pairs is as for lock_affected.
CREATE OR REPLACE FUNCTION earmark.missing_children(p_templates earmark.budgets[], p_paths text[], p_pairs text[] DEFAULT NULL) RETURNS SETOF earmark.budgets
LANGUAGE plpgsql STABLE AS $$
DECLARE
    b      earmark.budgets;
    v_path text;
BEGIN
    FOREACH b IN ARRAY p_templates LOOP
        b.template_id := b.id;
        FOREACH v_path IN ARRAY p_paths LOOP
            CONTINUE WHEN earmark.template_scope(v_path) <> earmark.template_scope(b.scope)
                OR p_pairs IS NOT NULL AND v_path || ' ' || b.unit <> ALL (p_pairs)
                OR earmark.has_child(b, v_path);
            b.scope := v_path;
            b.id := earmark.child_id(b.template_id, v_path);
            b.created_at := clock_timestamp();
            RETURN NEXT b;
        END LOOP;
    END LOOP;
END $$;

-- The actor of the first of p_calls, which are as for earmark.reserve_batch, that needs the budget on p_scope in p_unit. Null if there are no calls.
CREATE OR REPLACE FUNCTION earmark.first_actor(p_calls jsonb, p_scope text, p_unit text) RETURNS text LANGUAGE plpgsql STABLE AS $$
BEGIN
    RETURN (SELECT c ->> 'actor' FROM jsonb_array_elements(p_calls) WITH ORDINALITY AS calls (c, n)
            WHERE NOT (c ->> 'released')::boolean AND c -> 'amounts' ? p_unit
              AND EXISTS (SELECT FROM jsonb_array_elements_text(c -> 'scopes') AS scope WHERE scope = p_scope OR starts_with(scope, p_scope || '/'))
            ORDER BY n LIMIT 1);
END $$;

DROP FUNCTION IF EXISTS earmark.make_children(earmark.budgets[], text[], text[], text); -- without p_calls
-- Makes the missing children in the order of their ids (R6). It has locked no other row yet: a call that makes the same child waits here.
CREATE OR REPLACE FUNCTION earmark.make_children(p_templates earmark.budgets[], p_paths text[], p_pairs text[], p_actor text, p_calls jsonb) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
    b        earmark.budgets;
    v_actor  text;
    v_reason text;
BEGIN
    FOR b IN SELECT * FROM earmark.missing_children(p_templates, p_paths, p_pairs) ORDER BY id LOOP
        b := earmark.begin_rollover(b);
        INSERT INTO earmark.budgets SELECT b.* ON CONFLICT DO NOTHING; -- mutation: child-once
        IF FOUND THEN
            v_actor := coalesce(earmark.first_actor(p_calls, b.scope, b.unit), p_actor);
            v_reason := format('made with limit %s, from the template %s', b.limit_amount, b.template_id);
            PERFORM earmark.note('budget', b.tenant, NULL, b.id, v_actor, v_reason);
            PERFORM earmark.log_change(b.tenant, v_actor, 'budget.create', b.id, v_reason, NULL, earmark.budget_json(b));
        END IF;
    END LOOP;
END $$;

-- A budget with what its template, if it follows one, has changed by p_at. A change that is for the next window is in
-- force once the child's window of the moment of the change has ended; so is what was changed before it. A change
-- that is at once takes the ones before it with it.
CREATE OR REPLACE FUNCTION earmark.followed(b earmark.budgets, p_at timestamptz) RETURNS earmark.budgets LANGUAGE plpgsql STABLE AS $$
DECLARE
    r earmark.template_revisions;
BEGIN
    IF b.template_id IS NULL OR b.revision IS NULL THEN
        RETURN b;
    END IF;
    FOR r IN SELECT * FROM earmark.template_revisions WHERE template_id = b.template_id AND revision > b.revision ORDER BY revision DESC LOOP
        IF NOT r.next_window OR (earmark.window_at(b, r.created_at)).window_end <= p_at THEN -- mutation: next-window
            b.limit_amount := r.limit_amount;
            b.enforcement := r.enforcement;
            b.soft_ceiling := r.soft_ceiling;
            b.overage := r.overage;
            b.allowance := r.allowance;
            b.thresholds := r.thresholds;
            b.rollover := r.rollover;
            b.revision := r.revision;
            RETURN b;
        END IF;
    END LOOP;
    RETURN b;
END $$;

DROP FUNCTION IF EXISTS earmark.is_behind(earmark.budgets); -- with the whole row, which a query makes for each budget
-- Whether a budget's template has changed since the budget took over its settings.
CREATE OR REPLACE FUNCTION earmark.is_behind(p_template_id text, p_revision bigint) RETURNS boolean LANGUAGE plpgsql STABLE AS $$
BEGIN
    RETURN p_template_id IS NOT NULL AND p_revision IS NOT NULL
        AND EXISTS (SELECT FROM earmark.template_revisions WHERE template_id = p_template_id AND revision > p_revision);
END $$;

-- Lets a budget, whose row the caller has locked, take over what its template has changed, and returns it.
CREATE OR REPLACE FUNCTION earmark.follow(b earmark.budgets, p_actor text) RETURNS earmark.budgets LANGUAGE plpgsql AS $$
DECLARE
    v_after earmark.budgets := earmark.followed(b, clock_timestamp());
BEGIN
    IF v_after.revision IS DISTINCT FROM b.revision THEN
        PERFORM earmark.store_budget(b, v_after, p_actor, format('follows the template %s, with limit %s', b.template_id, v_after.limit_amount));
        SELECT * INTO v_after FROM earmark.budgets WHERE id = b.id;
    END IF;
    RETURN v_after;
END $$;

-- What a change by hand means: of a template another revision, and a child follows no more.
CREATE OR REPLACE FUNCTION earmark.by_hand(b earmark.budgets, p_next_window boolean) RETURNS earmark.budgets LANGUAGE plpgsql AS $$
BEGIN
    IF NOT earmark.is_template(b.scope) THEN
        b.revision := NULL; -- mutation: by-hand
        RETURN b;
    END IF;
    b.revision := coalesce(b.revision, 0) + 1;
    INSERT INTO earmark.template_revisions (template_id, revision, limit_amount, enforcement, soft_ceiling, overage, allowance, thresholds, rollover, next_window, created_at)
    VALUES (b.id, b.revision, b.limit_amount, b.enforcement, b.soft_ceiling, b.overage, b.allowance, b.thresholds, b.rollover, p_next_window, clock_timestamp());
    RETURN b;
END $$;

-- Lets a budget follow the template of its scope, unit and length of window from now on, or no more. False if there is no such
-- template.
CREATE OR REPLACE FUNCTION earmark.set_following(p_tenant text, p_id text, p_follow boolean, p_actor text) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET lock_timeout = '1s' AS $$
DECLARE
    b       earmark.budgets;
    t       earmark.budgets;
    v_after earmark.budgets;
BEGIN
    SELECT * INTO STRICT b FROM earmark.budgets WHERE tenant = p_tenant AND id = p_id FOR NO KEY UPDATE;
    b := (earmark.roll_over(b, clock_timestamp(), p_actor)).b;
    b := earmark.follow(b, p_actor);
    v_after := b;
    IF p_follow THEN
        SELECT * INTO t FROM earmark.budgets
        WHERE tenant = p_tenant AND scope = earmark.template_scope(b.scope) AND unit = b.unit AND period = b.period AND every = b.every AND archived_at IS NULL AND id <> b.id;
        IF NOT FOUND THEN
            RETURN false;
        END IF;
        v_after.template_id := t.id;
        v_after.revision := t.revision;
        v_after.limit_amount := t.limit_amount;
        v_after.enforcement := t.enforcement;
        v_after.soft_ceiling := t.soft_ceiling;
        v_after.overage := t.overage;
        v_after.allowance := t.allowance;
        v_after.thresholds := t.thresholds;
        v_after.rollover := t.rollover;
    ELSE
        v_after.revision := NULL;
    END IF;
    IF v_after IS DISTINCT FROM b THEN
        PERFORM earmark.store_budget(b, v_after, p_actor,
            CASE WHEN p_follow THEN format('follows the template %s, with limit %s', t.id, t.limit_amount) ELSE 'follows its template no more' END);
    END IF;
    RETURN true;
END $$;
