-- Held reservations whose leases end first, overdue ones before all others: their workflows
-- are the most likely not to run. $2 rows.
SELECT id FROM earmark.reservations WHERE tenant = $1 AND state = 'held' ORDER BY expires_at LIMIT $2
