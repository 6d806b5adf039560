-- $2 an endpoint, all if empty; $3 and $4 the last row of the page before, $5 rows.
SELECT earmark.webhook_json(w)
FROM earmark.webhooks w
WHERE w.tenant = $1
  AND ($2 = '' OR w.id = $2)
  AND ($3::timestamptz IS NULL OR (w.created_at, w.id) < ($3, $4))
ORDER BY w.created_at DESC, w.id DESC
LIMIT $5
