-- API keys. No function returns a key's hash: only sql/credential.sql reads it.

CREATE OR REPLACE FUNCTION earmark.key_json(k earmark.keys) RETURNS jsonb LANGUAGE plpgsql STABLE AS $$
BEGIN
    RETURN jsonb_build_object('id', k.id, 'tenant', k.tenant, 'name', k.name, 'role', k.role, 'scopes', k.scopes, 'created_at', k.created_at,
        'expires_at', k.expires_at, 'revoked_at', k.revoked_at, 'last_used_at', k.last_used_at, 'replaced_by', coalesce(k.replaced_by, ''),
        'rate', k.rate);
END $$;

-- JSON null if there is no such tenant.
CREATE OR REPLACE FUNCTION earmark.create_key(p_id text, p_tenant text, p_name text, p_role text, p_scopes text[], p_hash bytea, p_expires_at timestamptz,
    p_actor text, p_reason text, p_rate text DEFAULT '') RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET lock_timeout = '1s' AS $$
DECLARE
    k earmark.keys;
BEGIN
    IF NOT EXISTS (SELECT FROM earmark.tenants WHERE id = p_tenant) THEN
        RETURN 'null';
    END IF;
    INSERT INTO earmark.keys (id, tenant, name, role, scopes, hash, expires_at, rate)
    VALUES (p_id, p_tenant, p_name, p_role, p_scopes, p_hash, p_expires_at, p_rate) RETURNING * INTO k;
    PERFORM earmark.log_change(k.tenant, p_actor, 'key.create', k.id, p_reason, NULL, earmark.key_json(k));
    RETURN earmark.key_json(k);
END $$;

-- Creates a key like p_id, with the original lifetime of p_id, and lets p_id work for
-- p_overlap_ms more, but not beyond its own expiry. Answers with outcome 'applied' and the
-- new key; 'conflict' and the old key if that no longer works or was rotated before;
-- 'unknown' if there is none.
CREATE OR REPLACE FUNCTION earmark.rotate_key(p_tenant text, p_id text, p_new_id text, p_hash bytea, p_overlap_ms bigint, p_actor text, p_reason text) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET lock_timeout = '1s' AS $$
DECLARE
    k        earmark.keys;
    n        earmark.keys;
    v_before jsonb;
    v_now    timestamptz;
BEGIN
    SELECT * INTO k FROM earmark.keys WHERE tenant = p_tenant AND id = p_id FOR NO KEY UPDATE;
    IF NOT FOUND THEN
        RETURN jsonb_build_object('outcome', 'unknown');
    END IF;
    v_now := clock_timestamp();
    IF k.revoked_at IS NOT NULL OR k.replaced_by IS NOT NULL OR k.expires_at <= v_now THEN
        RETURN jsonb_build_object('outcome', 'conflict', 'key', earmark.key_json(k));
    END IF;
    v_before := earmark.key_json(k);
    INSERT INTO earmark.keys (id, tenant, name, role, scopes, hash, created_at, expires_at, rate)
    VALUES (p_new_id, k.tenant, k.name, k.role, k.scopes, p_hash, v_now, v_now + (k.expires_at - k.created_at), k.rate) RETURNING * INTO n;
    UPDATE earmark.keys SET replaced_by = n.id, expires_at = greatest(k.created_at, least(k.expires_at, v_now + p_overlap_ms * interval '1 millisecond'))
    WHERE id = k.id RETURNING * INTO k;
    PERFORM earmark.log_change(k.tenant, p_actor, 'key.create', n.id, p_reason, NULL, earmark.key_json(n));
    PERFORM earmark.log_change(k.tenant, p_actor, 'key.rotate', k.id, p_reason, v_before, earmark.key_json(k));
    RETURN jsonb_build_object('outcome', 'applied', 'key', earmark.key_json(n));
END $$;

-- The key after the call, even if it was revoked before; JSON null if there is none.
CREATE OR REPLACE FUNCTION earmark.revoke_key(p_tenant text, p_id text, p_actor text, p_reason text) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET lock_timeout = '1s' AS $$
DECLARE
    k        earmark.keys;
    v_before jsonb;
BEGIN
    SELECT * INTO k FROM earmark.keys WHERE tenant = p_tenant AND id = p_id FOR NO KEY UPDATE;
    IF NOT FOUND THEN
        RETURN 'null';
    ELSIF k.revoked_at IS NOT NULL THEN
        RETURN earmark.key_json(k);
    END IF;
    v_before := earmark.key_json(k);
    UPDATE earmark.keys SET revoked_at = clock_timestamp() WHERE id = k.id RETURNING * INTO k;
    PERFORM earmark.log_change(k.tenant, p_actor, 'key.revoke', k.id, p_reason, v_before, earmark.key_json(k));
    RETURN earmark.key_json(k);
END $$;

-- Records the hour in which keys were used, in the order of their ids, so that two
-- processes cannot deadlock.
CREATE OR REPLACE FUNCTION earmark.mark_keys_used(p_ids text[]) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET lock_timeout = '1s' AS $$
DECLARE
    v_hour timestamptz := date_trunc('hour', clock_timestamp(), 'UTC');
BEGIN
    PERFORM 1 FROM earmark.keys WHERE id = ANY (p_ids) AND (last_used_at < v_hour) IS NOT FALSE ORDER BY id FOR NO KEY UPDATE;
    UPDATE earmark.keys SET last_used_at = v_hour WHERE id = ANY (p_ids) AND (last_used_at < v_hour) IS NOT FALSE;
END $$;
