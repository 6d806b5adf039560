-- Open reservations, and settled ones whose workflow may not know it: the ones
-- looked at longest ago first. $1 least age of the last look in seconds, $2 rows
UPDATE earmark.reservations r SET checked_at = clock_timestamp()
FROM (
    (SELECT id, checked_at FROM earmark.reservations
     WHERE state IN ('held', 'review') AND checked_at < clock_timestamp() - $1 * interval '1 second'
     ORDER BY checked_at LIMIT $2 FOR NO KEY UPDATE SKIP LOCKED)
    UNION ALL
    (SELECT id, checked_at FROM earmark.reservations
     WHERE refresh_due AND checked_at < clock_timestamp() - $1 * interval '1 second'
     ORDER BY checked_at LIMIT $2 FOR NO KEY UPDATE SKIP LOCKED)
) AS due
WHERE r.id = due.id
RETURNING r.id, r.tenant, r.workflow_id, r.state, r.scopes, r.amounts, r.expires_at
