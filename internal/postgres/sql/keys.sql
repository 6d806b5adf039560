-- $2 and $3 the last row of the page before, $4 rows.
SELECT earmark.key_json(k)
FROM earmark.keys k
WHERE k.tenant = $1
  AND ($2::timestamptz IS NULL OR (k.created_at, k.id) < ($2, $3))
ORDER BY k.created_at DESC, k.id DESC
LIMIT $4
