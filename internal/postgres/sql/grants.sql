-- $2 budget, $3 and $4 the last row of the page before, $5 rows.
SELECT earmark.grant_json(g)
FROM earmark.grants g
WHERE g.tenant = $1 AND g.budget_id = $2
  AND ($3::timestamptz IS NULL OR (g.created_at, g.id) < ($3, $4))
ORDER BY g.created_at DESC, g.id DESC
LIMIT $5
