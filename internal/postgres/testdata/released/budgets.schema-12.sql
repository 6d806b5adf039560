-- $2 one id, $3 exact scope, $4 scopes of a path, $5 and $6 the last row of the page before, $7 rows,
-- $8 scopes: only budgets of these and of those below them; empty for all.
-- Archived budgets are found by their id alone.
SELECT b.id, b.scope, b.unit, b.limit_amount, b.period, b.timezone, b.enforcement, b.soft_ceiling, b.overage, b.created_at, b.archived_at,
       f.limit_amount, w.reserved, w.committed, w.window_start, w.window_end, b.thresholds
FROM earmark.budgets b
     CROSS JOIN LATERAL earmark.in_force(b, clock_timestamp()) f
     CROSS JOIN LATERAL earmark.window_at(b.id, b.period, b.timezone, clock_timestamp()) w
WHERE b.tenant = $1
  AND ($2 = '' OR b.id = $2)
  AND ($2 <> '' OR b.archived_at IS NULL)
  AND ($3 = '' OR b.scope = $3)
  AND (cardinality($4::text[]) = 0 OR b.scope = ANY ($4))
  AND (cardinality($8::text[]) = 0 OR earmark.scopes_within(ARRAY [b.scope], $8))
  AND ($5::timestamptz IS NULL OR (b.created_at, b.id) < ($5, $6))
ORDER BY b.created_at DESC, b.id DESC
LIMIT $7
