-- keys: each key belongs to a tenant, the audit log has what happened to it, and nobody can change the audit log
SELECT count(*), count(*) FILTER (WHERE bad), coalesce((array_agg(what) FILTER (WHERE bad))[1:10], '{}')
FROM (
    SELECT NOT EXISTS (SELECT 1 FROM earmark.tenants t WHERE t.id = k.tenant) AS bad, format('the tenant %s of the key %s does not exist', k.tenant, k.id) AS what
    FROM earmark.keys k
    UNION ALL
    SELECT NOT EXISTS (SELECT 1 FROM earmark.audit_log a WHERE (a.tenant, a.subject, a.action) = (k.tenant, k.id, e.action)),
           format('the key %s has no %s in the audit log', k.id, e.action)
    FROM earmark.keys k, LATERAL (VALUES ('key.create', true), ('key.rotate', k.replaced_by IS NOT NULL), ('key.revoke', k.revoked_at IS NOT NULL)) AS e (action, happened)
    WHERE e.happened
    UNION ALL
    SELECT NOT EXISTS (SELECT 1 FROM pg_trigger WHERE tgrelid = 'earmark.audit_log'::regclass AND tgname = 'audit_log_append_only' AND tgenabled = 'A'),
           'the trigger audit_log_append_only, which keeps the audit log append-only, is missing or disabled'
) AS checks
