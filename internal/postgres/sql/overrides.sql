-- $2 budget, $3 and $4 the last row of the page before, $5 rows.
SELECT earmark.override_json(o)
FROM earmark.overrides o
WHERE o.tenant = $1 AND o.budget_id = $2
  AND ($3::timestamptz IS NULL OR (o.created_at, o.id) < ($3, $4))
ORDER BY o.created_at DESC, o.id DESC
LIMIT $5
