-- The read before an estimate.

-- The existing row of an id, a scope that no budget covers, or the units that the budgets on
-- p_scopes and above count.
CREATE OR REPLACE FUNCTION earmark.counted_units(p_id text, p_tenant text, p_hash text, p_scopes text[]) RETURNS jsonb
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp SET enable_seqscan = off AS $$
BEGIN
    RETURN coalesce(
        earmark.existing_result(p_id, p_tenant, p_hash),
        earmark.check_coverage(p_tenant, p_scopes, '{}', '{}', true),
        jsonb_build_object('outcome', 'applied', 'units', (
            SELECT jsonb_agg(DISTINCT b.unit ORDER BY b.unit) FROM earmark.budgets b
            WHERE b.tenant = p_tenant AND b.archived_at IS NULL AND b.scope = ANY (earmark.with_templates(earmark.scope_paths(p_scopes))))));
END $$;
