-- $2 budget, $3 reservation, $4 the last entry of the page before, $5 rows, $6 scopes: only entries of budgets
-- and of reservations within them; empty for all.
SELECT e.id, e.kind, coalesce(e.reservation_id, ''), coalesce(e.budget_id, ''), e.window_start, e.reserved_delta, e.committed_delta,
       e.actor, e.reason, e.created_at
FROM earmark.entries e
WHERE e.tenant = $1
  AND ($2 = '' OR e.budget_id = $2)
  AND ($3 = '' OR e.reservation_id = $3)
  AND (cardinality($6::text[]) = 0
       OR earmark.scopes_within((SELECT r.scopes FROM earmark.reservations r WHERE r.id = e.reservation_id), $6)
       OR earmark.scopes_within((SELECT ARRAY [b.scope] FROM earmark.budgets b WHERE b.id = e.budget_id), $6))
  AND e.id > $4
ORDER BY e.id
LIMIT $5
