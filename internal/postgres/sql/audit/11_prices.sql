-- prices: the audit log has who added each version, none is missing, and nobody can change one
SELECT count(*), count(*) FILTER (WHERE bad), coalesce((array_agg(what) FILTER (WHERE bad))[1:10], '{}')
FROM (
    SELECT NOT EXISTS (SELECT 1 FROM earmark.audit_log a WHERE (a.tenant, a.subject, a.action) = (coalesce(v.tenant, 'default'), v.id::text, 'price.add')) AS bad,
           format('price version %s has no price.add in the audit log', v.id) AS what
    FROM earmark.price_versions v
    UNION ALL
    SELECT count(*) <> coalesce(max(id), 0), format('%s price versions are missing', coalesce(max(id), 0) - count(*)) FROM earmark.price_versions
    UNION ALL
    SELECT NOT EXISTS (SELECT 1 FROM pg_trigger WHERE tgrelid = 'earmark.price_versions'::regclass AND tgname = 'price_versions_append_only' AND tgenabled = 'A'),
           'the trigger price_versions_append_only, which keeps price versions append-only, is missing or disabled'
) AS checks
