-- Prices of AI models: versions that are added and never changed.

CREATE OR REPLACE FUNCTION earmark.price_version_json(v earmark.price_versions) RETURNS jsonb LANGUAGE plpgsql STABLE AS $$
BEGIN
    RETURN v.prices || jsonb_build_object('version', v.id, 'tenant', coalesce(v.tenant, ''), 'source', v.source, 'actor', v.actor, 'reason', v.reason,
        'created_at', v.created_at);
END $$;

-- Adds the version after p_after. Answers with outcome 'applied' and the version; 'conflict'
-- if another was added in the meantime; 'unknown' if there is no such tenant.
CREATE OR REPLACE FUNCTION earmark.add_price_version(p_after bigint, p_tenant text, p_prices jsonb, p_source text, p_actor text, p_reason text) RETURNS jsonb
LANGUAGE plpgsql SET lock_timeout = '1s' AS $$
DECLARE
    v earmark.price_versions;
BEGIN
    IF p_tenant IS NOT NULL AND NOT EXISTS (SELECT FROM earmark.tenants WHERE id = p_tenant) THEN
        RETURN jsonb_build_object('outcome', 'unknown');
    END IF;
    LOCK TABLE earmark.price_versions IN SHARE ROW EXCLUSIVE MODE; -- numbers without gaps, in the order of commit
    IF coalesce((SELECT max(id) FROM earmark.price_versions), 0) <> p_after THEN
        RETURN jsonb_build_object('outcome', 'conflict');
    END IF;
    INSERT INTO earmark.price_versions (id, tenant, prices, source, actor, reason)
    VALUES (p_after + 1, p_tenant, p_prices, p_source, p_actor, p_reason) RETURNING * INTO v;
    -- What concerns all tenants is in the log of the tenant that is always there.
    PERFORM earmark.log_change(coalesce(v.tenant, 'default'), p_actor, 'price.add', v.id::text, p_reason, NULL,
        (earmark.price_version_json(v) - 'entries') || jsonb_build_object('entries', jsonb_array_length(coalesce(p_prices -> 'entries', '[]'))));
    RETURN jsonb_build_object('outcome', 'applied', 'version', earmark.price_version_json(v));
END $$;

-- Adds a tenant's own prices. Prices of the installation, multipliers and fallbacks are the
-- operator's of the database, who calls add_price_version.
CREATE OR REPLACE FUNCTION earmark.add_own_prices(p_after bigint, p_tenant text, p_entries jsonb, p_source text, p_actor text, p_reason text) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET lock_timeout = '1s' AS $$
BEGIN
    IF p_tenant IS NULL THEN
        RAISE EXCEPTION 'the tenant is missing' USING ERRCODE = 'null_value_not_allowed';
    END IF;
    RETURN earmark.add_price_version(p_after, p_tenant, jsonb_build_object('entries', p_entries), p_source, p_actor, p_reason);
END $$;

CREATE OR REPLACE FUNCTION earmark.refuse_price_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'price versions are append-only: % is refused', TG_OP USING ERRCODE = 'restrict_violation'; -- mutation: prices-append-only
END $$;

DO $$
BEGIN
    IF NOT EXISTS (SELECT FROM pg_trigger WHERE tgname = 'price_versions_append_only' AND tgrelid = 'earmark.price_versions'::regclass) THEN
        CREATE TRIGGER price_versions_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON earmark.price_versions
            FOR EACH STATEMENT EXECUTE FUNCTION earmark.refuse_price_change();
        ALTER TABLE earmark.price_versions ENABLE ALWAYS TRIGGER price_versions_append_only;
    END IF;
END $$;
