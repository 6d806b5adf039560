-- $2 state, $3 scope, $4 overdue, $5 orphan, $6 and $7 the last row of the page before, $8
-- rows, $9 scopes: only reservations all of whose scopes are these or below them; empty for
-- all.
-- If a scope has few reservations, the query checks every reservation of the tenant. The
-- check is therefore one search in a text, "/ acme/ml/u1/ other/"; an index would cost more
-- in writes than it saves.
SELECT earmark.reservation_json(r)
FROM earmark.reservations r
WHERE r.tenant = $1
  AND ($2 = '' OR r.state = $2)
  AND ($3 = '' OR strpos('/ ' || array_to_string(r.scopes, '/ ') || '/', ' ' || $3 || '/') > 0)
  AND (NOT $4 OR (r.state = 'held' AND r.expires_at < (SELECT clock_timestamp())))
  AND (NOT $5 OR (r.orphan AND r.state IN ('held', 'review')))
  AND (cardinality($9::text[]) = 0 OR earmark.scopes_within(r.scopes, $9))
  AND ($6::timestamptz IS NULL OR (r.created_at, r.id) < ($6, $7))
ORDER BY r.created_at DESC, r.id DESC
LIMIT $8
