-- Held reservations whose leases end first, the overdue ones before all: where a workflow
-- that does not run is most likely. $2 rows.
SELECT id FROM earmark.reservations WHERE tenant = $1 AND state = 'held' ORDER BY expires_at LIMIT $2
