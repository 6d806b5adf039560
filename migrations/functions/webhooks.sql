-- Webhooks: endpoints that events are delivered to, and their place in the feed. One workflow for each endpoint asks
-- for the next events, sends them, and records the attempts. All that it needs is in the row, so a workflow that
-- is lost, or that runs twice, loses no event.

-- An endpoint without its secrets.
CREATE OR REPLACE FUNCTION earmark.webhook_json(w earmark.webhooks) RETURNS jsonb LANGUAGE plpgsql STABLE AS $$
BEGIN
    RETURN jsonb_build_object('id', w.id, 'url', w.url, 'types', w.types, 'budgets', w.budgets, 'scopes', w.scopes,
        'enabled', w.disabled_at IS NULL, 'disabled_reason', w.disabled_reason, 'after', 'evt_' || w.tx || '_' || w.event_id,
        'failing_since', w.failing_since, 'last_error', w.last_error, 'next_attempt_at', w.retry_at,
        'former_secret_until', CASE WHEN w.former_until > clock_timestamp() THEN w.former_until END, 'created_at', w.created_at);
END $$;

-- The secrets that sign now, the newest first.
CREATE OR REPLACE FUNCTION earmark.webhook_secrets(w earmark.webhooks) RETURNS text[] LANGUAGE plpgsql STABLE AS $$
BEGIN
    RETURN CASE WHEN w.former_until > clock_timestamp() THEN ARRAY [w.secret, w.former_secret] ELSE ARRAY [w.secret] END; -- mutation: former-secret-signs
END $$;

-- The first of these budgets that the tenant does not have; null if it has all.
CREATE OR REPLACE FUNCTION earmark.missing_budget(p_tenant text, p_budgets text[]) RETURNS text LANGUAGE plpgsql STABLE AS $$
BEGIN
    RETURN (SELECT min(x) FROM unnest(p_budgets) AS x WHERE NOT EXISTS (SELECT FROM earmark.budgets WHERE tenant = p_tenant AND id = x));
END $$;

-- Makes an endpoint, which receives the events from now on. Outcomes: applied; invalid with the subject 'budgets' and
-- the id of one that the tenant does not have, or with the subject 'url' if the tenant has p_most endpoints.
CREATE OR REPLACE FUNCTION earmark.create_webhook(p_id text, p_tenant text, p_url text, p_types text[], p_budgets text[], p_scopes text[], p_secret text,
    p_most integer, p_actor text) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET lock_timeout = '1s' AS $$
DECLARE
    w earmark.webhooks;
BEGIN
    IF earmark.missing_budget(p_tenant, p_budgets) IS NOT NULL THEN
        RETURN jsonb_build_object('outcome', 'invalid', 'subject', 'budgets', 'budget_id', earmark.missing_budget(p_tenant, p_budgets));
    END IF;
    PERFORM pg_advisory_xact_lock(hashtextextended('earmark.create_webhook ' || p_tenant, 0)); -- so that two calls do not pass the bound
    IF (SELECT count(*) FROM earmark.webhooks WHERE tenant = p_tenant) >= p_most THEN
        RETURN jsonb_build_object('outcome', 'invalid', 'subject', 'url');
    END IF;
    INSERT INTO earmark.webhooks (id, tenant, url, types, budgets, scopes, secret, tx, event_id)
    VALUES (p_id, p_tenant, p_url, p_types, p_budgets, p_scopes, p_secret, pg_snapshot_xmin(pg_current_snapshot()), 0) RETURNING * INTO w;
    PERFORM earmark.log_change(w.tenant, p_actor, 'webhook.create', w.id, '', NULL, earmark.webhook_json(w));
    RETURN jsonb_build_object('outcome', 'applied', 'webhook', earmark.webhook_json(w));
END $$;

-- Changes what p_patch has of url, types, budgets, scopes and enabled. A new url, or enabled, makes an attempt at once.
-- Outcomes: applied, unknown, and invalid as for create_webhook.
CREATE OR REPLACE FUNCTION earmark.patch_webhook(p_tenant text, p_id text, p_patch jsonb, p_actor text) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET lock_timeout = '1s' AS $$
DECLARE
    w         earmark.webhooks;
    v_before  jsonb;
    v_missing text;
BEGIN
    SELECT * INTO w FROM earmark.webhooks WHERE tenant = p_tenant AND id = p_id FOR NO KEY UPDATE;
    IF NOT FOUND THEN
        RETURN jsonb_build_object('outcome', 'unknown');
    END IF;
    v_before := earmark.webhook_json(w);
    w.url := coalesce(p_patch ->> 'url', w.url);
    IF p_patch ? 'types' THEN
        w.types := ARRAY(SELECT jsonb_array_elements_text(p_patch -> 'types'));
    END IF;
    IF p_patch ? 'budgets' THEN
        w.budgets := ARRAY(SELECT jsonb_array_elements_text(p_patch -> 'budgets'));
        v_missing := earmark.missing_budget(p_tenant, w.budgets);
        IF v_missing IS NOT NULL THEN
            RETURN jsonb_build_object('outcome', 'invalid', 'subject', 'budgets', 'budget_id', v_missing);
        END IF;
    END IF;
    IF p_patch ? 'scopes' THEN
        w.scopes := ARRAY(SELECT jsonb_array_elements_text(p_patch -> 'scopes'));
    END IF;
    IF p_patch ->> 'enabled' = 'false' AND w.disabled_at IS NULL THEN
        w.disabled_at := clock_timestamp();
        w.disabled_reason := 'disabled by ' || p_actor;
    ELSIF p_patch ->> 'enabled' = 'true' THEN
        w.disabled_at := NULL;
        w.disabled_reason := '';
    END IF;
    IF p_patch ? 'url' OR p_patch ->> 'enabled' = 'true' THEN
        w.attempts := 0;
        w.failing_since := NULL;
        w.last_error := '';
        w.retry_at := NULL;
        w.woken_at := NULL;
    END IF;
    UPDATE earmark.webhooks SET url = w.url, types = w.types, budgets = w.budgets, scopes = w.scopes, disabled_at = w.disabled_at, disabled_reason = w.disabled_reason,
        attempts = w.attempts, failing_since = w.failing_since, last_error = w.last_error, retry_at = w.retry_at, woken_at = w.woken_at
    WHERE id = w.id;
    PERFORM earmark.log_change(w.tenant, p_actor, 'webhook.change', w.id, '', v_before, earmark.webhook_json(w));
    RETURN jsonb_build_object('outcome', 'applied', 'webhook', earmark.webhook_json(w));
END $$;

-- Gives an endpoint a new secret; the one before signs too for p_overlap_ms. Outcomes: applied, unknown.
CREATE OR REPLACE FUNCTION earmark.rotate_webhook_secret(p_tenant text, p_id text, p_secret text, p_overlap_ms bigint, p_actor text) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET lock_timeout = '1s' AS $$
DECLARE
    w        earmark.webhooks;
    v_before jsonb;
BEGIN
    SELECT * INTO w FROM earmark.webhooks WHERE tenant = p_tenant AND id = p_id FOR NO KEY UPDATE;
    IF NOT FOUND THEN
        RETURN jsonb_build_object('outcome', 'unknown');
    END IF;
    v_before := earmark.webhook_json(w);
    UPDATE earmark.webhooks SET secret = p_secret, former_secret = w.secret, former_until = clock_timestamp() + p_overlap_ms * interval '1 millisecond'
    WHERE id = w.id RETURNING * INTO w;
    PERFORM earmark.log_change(w.tenant, p_actor, 'webhook.rotate', w.id, '', v_before, earmark.webhook_json(w));
    RETURN jsonb_build_object('outcome', 'applied', 'webhook', earmark.webhook_json(w));
END $$;

-- Removes an endpoint. Its workflow ends when it next asks for events. Outcomes: applied, unknown.
CREATE OR REPLACE FUNCTION earmark.delete_webhook(p_tenant text, p_id text, p_actor text) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET lock_timeout = '1s' AS $$
DECLARE
    w earmark.webhooks;
BEGIN
    DELETE FROM earmark.webhooks WHERE tenant = p_tenant AND id = p_id RETURNING * INTO w;
    IF NOT FOUND THEN
        RETURN jsonb_build_object('outcome', 'unknown');
    END IF;
    w.disabled_at := clock_timestamp();
    w.disabled_reason := 'deleted';
    PERFORM earmark.log_change(w.tenant, p_actor, 'webhook.delete', w.id, '', earmark.webhook_json(w), earmark.webhook_json(w));
    RETURN jsonb_build_object('outcome', 'applied', 'webhook', earmark.webhook_json(w));
END $$;

-- Goes back to deliver the events from p_from up to p_to (null: now) again. Until the present position is reached again,
-- only events of this time are delivered. A replay replaces one that is under way. Outcomes: applied, unknown.
CREATE OR REPLACE FUNCTION earmark.replay_webhook(p_tenant text, p_id text, p_from timestamptz, p_to timestamptz, p_actor text) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET lock_timeout = '1s' AS $$
DECLARE
    -- No transaction that writes events lasts as long: the first event of a time has none before it in the feed
    -- that is younger than this.
    c_longest CONSTANT interval := '1 minute';
    w         earmark.webhooks;
    v_before  jsonb;
    v_first   xid8;
BEGIN
    SELECT * INTO w FROM earmark.webhooks WHERE tenant = p_tenant AND id = p_id FOR NO KEY UPDATE;
    IF NOT FOUND THEN
        RETURN jsonb_build_object('outcome', 'unknown');
    END IF;
    v_before := earmark.webhook_json(w);
    v_first := coalesce((SELECT tx FROM earmark.events WHERE created_at >= p_from AND created_at < p_from + c_longest ORDER BY tx LIMIT 1),
                        (SELECT tx FROM earmark.events WHERE created_at >= p_from ORDER BY created_at LIMIT 1));
    IF v_first <= w.tx THEN
        -- Behind the end of a replay that is under way nothing was delivered yet.
        IF w.replay_tx IS NULL OR (w.replay_tx, w.replay_id) < (w.tx, w.event_id) THEN
            w.replay_tx := w.tx;
            w.replay_id := w.event_id;
        END IF;
        UPDATE earmark.webhooks SET tx = v_first, event_id = 0, replay_from = p_from, replay_to = coalesce(p_to, 'infinity'),
            replay_tx = w.replay_tx, replay_id = w.replay_id, attempts = 0, retry_at = NULL, woken_at = NULL
        WHERE id = w.id RETURNING * INTO w;
    END IF;
    PERFORM earmark.log_change(w.tenant, p_actor, 'webhook.replay', w.id, '', v_before, earmark.webhook_json(w));
    RETURN jsonb_build_object('outcome', 'applied', 'webhook', earmark.webhook_json(w));
END $$;

-- The next events that an endpoint wants, up to p_max; and the position up to which events were looked at, which is that
-- of the last one.
CREATE OR REPLACE FUNCTION earmark.wanted_events(w earmark.webhooks, p_max integer, OUT events jsonb, OUT tx xid8, OUT event_id bigint) LANGUAGE plpgsql AS $$
DECLARE
    c_most   CONSTANT integer := 2000; -- events that one call looks at
    e        earmark.events;
    v_wanted jsonb[] := '{}';
BEGIN
    tx := w.tx;
    event_id := w.event_id;
    FOR e IN SELECT * FROM earmark.events x
             WHERE x.tenant = w.tenant AND (x.tx, x.id) > (w.tx, w.event_id) AND x.tx < pg_snapshot_xmin(pg_current_snapshot()) -- mutation: webhook-below-xmin
             ORDER BY x.tx, x.id LIMIT c_most LOOP
        tx := e.tx;
        event_id := e.id;
        IF (w.types = '{}' OR e.type = ANY (w.types))
           AND (w.budgets = '{}' OR e.budget_id = ANY (w.budgets))
           AND (w.scopes = '{}' OR e.scopes <> '{}' AND earmark.scopes_within(e.scopes, w.scopes)) -- mutation: webhook-filter
           AND (w.replay_tx IS NULL OR (e.tx, e.id) > (w.replay_tx, w.replay_id) OR e.created_at >= w.replay_from AND e.created_at < w.replay_to) THEN
            v_wanted := v_wanted || earmark.event_json(e);
            EXIT WHEN cardinality(v_wanted) >= p_max;
        END IF;
    END LOOP;
    events := to_jsonb(v_wanted);
END $$;

-- Up to p_max endpoints whose workflow should deliver: {id, tenant}. An endpoint that was returned is returned again after
-- p_lease_ms, unless it has nothing more to deliver; so a workflow that is lost is started again.
CREATE OR REPLACE FUNCTION earmark.claim_webhooks(p_lease_ms bigint, p_max integer) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET lock_timeout = '1s' AS $$
DECLARE
    w        earmark.webhooks;
    f        record;
    v_now    timestamptz := clock_timestamp();
    v_claims jsonb := '[]';
BEGIN
    FOR w IN SELECT * FROM earmark.webhooks x
             WHERE x.disabled_at IS NULL AND coalesce(x.retry_at <= v_now, true) AND coalesce(x.woken_at <= v_now - p_lease_ms * interval '1 millisecond', true)
               AND EXISTS (SELECT FROM earmark.events e WHERE e.tenant = x.tenant AND (e.tx, e.id) > (x.tx, x.event_id) AND e.tx < pg_snapshot_xmin(pg_current_snapshot()))
             ORDER BY coalesce(x.woken_at, '-infinity'), x.id LIMIT p_max FOR NO KEY UPDATE OF x SKIP LOCKED LOOP
        SELECT * INTO f FROM earmark.wanted_events(w, 1);
        IF f.events = '[]' THEN
            UPDATE earmark.webhooks SET tx = f.tx, event_id = f.event_id WHERE id = w.id;
        ELSE
            UPDATE earmark.webhooks SET woken_at = v_now WHERE id = w.id;
            v_claims := v_claims || jsonb_build_object('id', w.id, 'tenant', w.tenant);
        END IF;
    END LOOP;
    RETURN v_claims;
END $$;

-- What an endpoint is to be sent next, as state: 'due' with up to p_max events, the url, the secrets, the position after
-- which the events come, and the failed attempts of the first one; 'waiting' with wait_ms until the next attempt; 'idle';
-- 'over' for one that is disabled or deleted.
CREATE OR REPLACE FUNCTION earmark.next_deliveries(p_id text, p_max integer) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET lock_timeout = '1s' AS $$
DECLARE
    w     earmark.webhooks;
    f     record;
    v_now timestamptz;
BEGIN
    SELECT * INTO w FROM earmark.webhooks WHERE id = p_id FOR NO KEY UPDATE;
    v_now := clock_timestamp();
    IF NOT FOUND OR w.disabled_at IS NOT NULL THEN
        RETURN jsonb_build_object('state', 'over');
    ELSIF w.retry_at > v_now THEN
        RETURN jsonb_build_object('state', 'waiting', 'wait_ms', ceil(extract(epoch FROM w.retry_at - v_now) * 1000)::bigint);
    END IF;
    SELECT * INTO f FROM earmark.wanted_events(w, p_max);
    IF f.events = '[]' THEN
        UPDATE earmark.webhooks SET tx = f.tx, event_id = f.event_id, woken_at = NULL WHERE id = w.id;
        RETURN jsonb_build_object('state', 'idle');
    END IF;
    RETURN jsonb_build_object('state', 'due', 'url', w.url, 'secrets', earmark.webhook_secrets(w), 'events', f.events,
        'after', 'evt_' || w.tx || '_' || w.event_id, 'attempts', w.attempts);
END $$;

-- How long deliveries to an endpoint may fail before it is disabled.
CREATE OR REPLACE FUNCTION earmark.webhook_patience() RETURNS interval LANGUAGE sql IMMUTABLE AS $$ SELECT interval '72 hours' $$;

-- Records attempts in their order: {event_id, type, attempt, at, duration_ms, status, error}, of which only the last one may
-- have failed; after that the next one is p_retry_ms from now. Moves the position behind the last success, unless
-- the position is no longer p_after: a replay has begun, or the same events were sent twice. Answers with whether the endpoint
-- was disabled by it.
CREATE OR REPLACE FUNCTION earmark.record_deliveries(p_id text, p_after text, p_attempts jsonb, p_retry_ms bigint) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET lock_timeout = '1s' AS $$
DECLARE
    w         earmark.webhooks;
    a         record;
    v_now     timestamptz;
    v_retry   timestamptz;
    v_current boolean;
    v_over    boolean := false;
BEGIN
    SELECT * INTO w FROM earmark.webhooks WHERE id = p_id FOR NO KEY UPDATE;
    v_now := clock_timestamp();
    v_current := FOUND AND w.disabled_at IS NULL AND p_after = 'evt_' || w.tx || '_' || w.event_id; -- mutation: delivered-position
    FOR a IN SELECT x.* FROM jsonb_array_elements(p_attempts) WITH ORDINALITY AS i (item, n),
                             jsonb_to_record(i.item) AS x (event_id text, type text, attempt integer, at timestamptz, duration_ms bigint, status integer, error text)
             ORDER BY i.n LOOP
        v_retry := NULL;
        IF v_current AND a.error = '' THEN
            w.tx := split_part(a.event_id, '_', 2)::xid8; -- mutation: delivery-moves-position
            w.event_id := split_part(a.event_id, '_', 3)::bigint;
            w.attempts := 0;
            w.failing_since := NULL;
            w.last_error := '';
            w.retry_at := NULL;
        ELSIF v_current THEN
            w.attempts := w.attempts + 1;
            w.failing_since := coalesce(w.failing_since, v_now);
            w.last_error := a.error;
            v_over := w.failing_since <= v_now - earmark.webhook_patience(); -- mutation: webhook-patience
            v_retry := CASE WHEN NOT v_over THEN v_now + p_retry_ms * interval '1 millisecond' END;
            w.retry_at := v_retry;
        END IF;
        INSERT INTO earmark.deliveries (webhook_id, event_id, type, attempt, at, duration_ms, status, error, retry_at)
        VALUES (p_id, a.event_id, a.type, a.attempt, a.at, a.duration_ms, a.status, a.error, v_retry);
    END LOOP;
    IF v_over THEN
        w.disabled_at := v_now;
        w.disabled_reason := format('every attempt since %s failed', to_char(w.failing_since AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"'));
        PERFORM earmark.emit('webhook.disabled', w.tenant, '{}', NULL, NULL, NULL,
            jsonb_build_object('webhook_id', w.id, 'url', w.url, 'failing_since', w.failing_since, 'error', w.last_error, 'after', 'evt_' || w.tx || '_' || w.event_id));
    END IF;
    IF v_current THEN
        UPDATE earmark.webhooks SET tx = w.tx, event_id = w.event_id, attempts = w.attempts, failing_since = w.failing_since, last_error = w.last_error,
            retry_at = w.retry_at, disabled_at = w.disabled_at, disabled_reason = w.disabled_reason
        WHERE id = w.id;
    END IF;
    RETURN jsonb_build_object('disabled', v_over);
END $$;

-- Removes up to p_max attempts that are older than p_keep_ms, oldest first, and returns how many.
CREATE OR REPLACE FUNCTION earmark.prune_deliveries(p_keep_ms bigint, p_max integer) RETURNS bigint
LANGUAGE plpgsql SET lock_timeout = '1s' AS $$
DECLARE
    v_before timestamptz := clock_timestamp() - p_keep_ms * interval '1 millisecond';
    v_gone   bigint;
BEGIN
    DELETE FROM earmark.deliveries WHERE id IN (SELECT id FROM earmark.deliveries WHERE at < v_before ORDER BY at LIMIT p_max);
    GET DIAGNOSTICS v_gone = ROW_COUNT;
    RETURN v_gone;
END $$;
