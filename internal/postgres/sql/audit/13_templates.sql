-- templates: a template has the settings of its newest revision and no window; a child that follows it has those of its own revision
SELECT count(*), count(*) FILTER (WHERE bad), coalesce((array_agg(what) FILTER (WHERE bad))[1:10], '{}')
FROM (
    SELECT (b.limit_amount, b.enforcement, b.soft_ceiling, b.overage, b.allowance, b.thresholds, b.rollover) IS DISTINCT FROM (r.limit_amount, r.enforcement, r.soft_ceiling, r.overage, r.allowance, r.thresholds, r.rollover) -- mutation: audit-templates
        OR r.revision IS NULL
        OR b.template_id IS NULL AND EXISTS (SELECT FROM earmark.template_revisions n WHERE n.template_id = b.id AND n.revision > b.revision) AS bad,
           format('%s on %s does not have the settings of revision %s of %s', b.id, b.scope, b.revision, coalesce(b.template_id, b.id)) AS what
    FROM earmark.budgets b LEFT JOIN earmark.template_revisions r ON r.template_id = coalesce(b.template_id, b.id) AND r.revision = b.revision
    WHERE b.revision IS NOT NULL OR earmark.is_template(b.scope)
    UNION ALL
    SELECT earmark.template_scope(b.scope) IS DISTINCT FROM t.scope OR earmark.is_template(b.scope) OR (t.tenant, t.unit, t.period, t.every) IS DISTINCT FROM (b.tenant, b.unit, b.period, b.every),
           format('%s on %s, of the template %s on %s', b.id, b.scope, b.template_id, t.scope)
    FROM earmark.budgets b LEFT JOIN earmark.budgets t ON t.id = b.template_id
    WHERE b.template_id IS NOT NULL
    UNION ALL
    SELECT w.budget_id IS NOT NULL, format('the template %s has a window', b.id)
    FROM earmark.budgets b LEFT JOIN LATERAL (SELECT budget_id FROM earmark.windows WHERE budget_id = b.id LIMIT 1) w ON true
    WHERE earmark.is_template(b.scope)
) AS checks
