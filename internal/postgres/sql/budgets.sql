-- $2 one id, $3 exact scope, $4 scopes of a path, $5 and $6 the last row of the page before, $7 rows,
-- $8 scopes: only budgets of these and of those below them; empty for all, $9 a template.
-- Archived budgets are found by their id alone. The page is found first, and then its balances.
SELECT b.id, b.scope, b.unit, b.limit_amount, earmark.window_json(b), b.enforcement, b.soft_ceiling, b.overage, b.created_at, b.archived_at,
       earmark.add_granted(f.limit_amount, g.reserved, g.committed, g.remaining), w.reserved, w.committed, w.window_start, w.window_end, b.thresholds,
       earmark.is_template(b.scope), coalesce(b.template_id, ''), b.template_id IS NOT NULL AND b.revision IS NOT NULL,
       b.allowance, b.rollover, g.reserved, g.committed, g.remaining
FROM (SELECT x
      FROM earmark.budgets x
      WHERE x.tenant = $1
        AND ($2 = '' OR x.id = $2)
        AND ($2 <> '' OR x.archived_at IS NULL)
        AND ($3 = '' OR x.scope = $3)
        AND (cardinality($4::text[]) = 0 OR x.scope = ANY ($4))
        AND (cardinality($8::text[]) = 0 OR earmark.scopes_within(ARRAY [x.scope], $8))
        AND ($9 = '' OR x.template_id = $9)
        AND ($5::timestamptz IS NULL OR (x.created_at, x.id) < ($5, $6))
      ORDER BY x.created_at DESC, x.id DESC
      LIMIT $7) AS page
     CROSS JOIN LATERAL earmark.followed(x, clock_timestamp()) b
     CROSS JOIN LATERAL earmark.in_force(b, clock_timestamp()) f
     CROSS JOIN LATERAL earmark.balance_at(b, clock_timestamp()) w
     CROSS JOIN LATERAL earmark.granted_at(b, w.window_start, clock_timestamp()) g
ORDER BY b.created_at DESC, b.id DESC
