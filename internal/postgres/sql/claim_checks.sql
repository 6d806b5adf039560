-- Open reservations, and settled ones whose workflow may not know it: the longest unchecked
-- first. $1 minimum age of the last check in seconds, $2 rows of each kind. Two steps,
-- because Postgres takes no row locks inside a UNION. The SELECT around the clock makes its
-- value constant, which an index search needs.
WITH open AS (
    SELECT id, checked_at FROM earmark.reservations
    WHERE state IN ('held', 'review') AND checked_at < (SELECT clock_timestamp()) - $1 * interval '1 second'
    ORDER BY checked_at LIMIT $2 FOR NO KEY UPDATE SKIP LOCKED
), settled AS (
    SELECT id, checked_at FROM earmark.reservations
    WHERE refresh_due AND checked_at < (SELECT clock_timestamp()) - $1 * interval '1 second'
    ORDER BY checked_at LIMIT $2 FOR NO KEY UPDATE SKIP LOCKED
), claimed AS (
    UPDATE earmark.reservations r SET checked_at = clock_timestamp()
    FROM (SELECT * FROM open UNION ALL SELECT * FROM settled) AS due
    WHERE r.id = due.id
    RETURNING r.id, r.tenant, r.workflow_id, r.state, r.scopes, r.amounts, r.created_at, r.expires_at, r.on_expiry, r.request_hash, due.checked_at AS looked_at
)
SELECT id, tenant, workflow_id, state, scopes, amounts, created_at, expires_at, on_expiry, request_hash FROM claimed ORDER BY looked_at, id
