-- $1 endpoint, $2 the last row of the page before, 0 for the first page; $3 rows.
SELECT jsonb_build_object('id', d.id, 'event_id', d.event_id, 'type', d.type, 'attempt', d.attempt, 'at', d.at, 'duration_ms', d.duration_ms,
    'status', d.status, 'error', d.error, 'next_attempt_at', d.retry_at)
FROM earmark.deliveries d
WHERE d.webhook_id = $1
  AND ($2::bigint = 0 OR d.id < $2)
ORDER BY d.id DESC
LIMIT $3
