-- $2 budget, $3 reservation, $4 the last entry of the page before, $5 rows
SELECT e.id, e.kind, coalesce(e.reservation_id, ''), coalesce(e.budget_id, ''), e.window_start, e.reserved_delta, e.committed_delta,
       e.actor, e.reason, e.created_at
FROM earmark.entries e
WHERE e.tenant = $1
  AND ($2 = '' OR e.budget_id = $2)
  AND ($3 = '' OR e.reservation_id = $3)
  AND e.id > $4
ORDER BY e.id
LIMIT $5
