-- Tenants.

CREATE OR REPLACE FUNCTION earmark.tenant_json(t earmark.tenants) RETURNS jsonb LANGUAGE plpgsql STABLE AS $$
BEGIN
    RETURN jsonb_build_object('id', t.id, 'created_at', t.created_at, 'disabled_at', t.disabled_at);
END $$;

-- JSON null if the tenant exists already.
CREATE OR REPLACE FUNCTION earmark.create_tenant(p_id text, p_actor text, p_reason text) RETURNS jsonb
LANGUAGE plpgsql SET lock_timeout = '1s' AS $$
DECLARE
    t earmark.tenants;
BEGIN
    INSERT INTO earmark.tenants (id) VALUES (p_id) ON CONFLICT DO NOTHING RETURNING * INTO t;
    IF NOT FOUND THEN
        RETURN 'null';
    END IF;
    PERFORM earmark.log_change(t.id, p_actor, 'tenant.create', t.id, p_reason, NULL, earmark.tenant_json(t));
    RETURN earmark.tenant_json(t);
END $$;

-- Disables a tenant, so that none of its keys works, or enables it again. Changes nothing
-- if that is the case already. JSON null if there is no such tenant.
CREATE OR REPLACE FUNCTION earmark.set_tenant_disabled(p_id text, p_disabled boolean, p_actor text, p_reason text) RETURNS jsonb
LANGUAGE plpgsql SET lock_timeout = '1s' AS $$
DECLARE
    t        earmark.tenants;
    v_before jsonb;
BEGIN
    SELECT * INTO t FROM earmark.tenants WHERE id = p_id FOR NO KEY UPDATE;
    IF NOT FOUND THEN
        RETURN 'null';
    ELSIF (t.disabled_at IS NOT NULL) = p_disabled THEN
        RETURN earmark.tenant_json(t);
    END IF;
    v_before := earmark.tenant_json(t);
    UPDATE earmark.tenants SET disabled_at = CASE WHEN p_disabled THEN clock_timestamp() END WHERE id = p_id RETURNING * INTO t;
    PERFORM earmark.log_change(t.id, p_actor, CASE WHEN p_disabled THEN 'tenant.disable' ELSE 'tenant.enable' END, t.id, p_reason,
        v_before, earmark.tenant_json(t));
    RETURN earmark.tenant_json(t);
END $$;
