-- The part of earmark.StuckReason that the ledger knows. $2 scope, $3 reason, $4 how far
-- past its expiry in milliseconds, $5 and $6 ids for which Temporal reports a failing task
-- or settlement, $7 and $8 the last row of the page before, $9 rows, $10 ids for which
-- Temporal reports no open workflow, if they are still open, $11 ids for which Temporal
-- reports a paused workflow, $12 scopes: only reservations all of whose scopes are these or
-- below them; empty for all.
-- Each branch has an index that contains little besides stuck reservations.
WITH found AS (
    SELECT id FROM earmark.reservations WHERE state = 'held' AND expires_at < (SELECT clock_timestamp()) - $4 * interval '1 millisecond'
    UNION SELECT id FROM earmark.reservations WHERE state = 'review'
    UNION SELECT id FROM earmark.reservations WHERE orphan
    UNION SELECT unnest($5::text[]) UNION SELECT unnest($6::text[]) UNION SELECT unnest($11::text[])
    UNION SELECT id FROM earmark.reservations WHERE id = ANY ($10::text[]) AND state IN ('held', 'review')
      AND created_at < clock_timestamp() - $4 * interval '1 millisecond' -- a workflow may start after its row
), stuck AS (
    SELECT r.*, CASE WHEN r.id = ANY ($11) THEN 'paused' WHEN r.id = ANY ($5) THEN 'task_failing' WHEN r.id = ANY ($6) THEN 'settlement_failing'
                     WHEN r.orphan OR r.id = ANY ($10) THEN 'orphan' WHEN r.state = 'review' THEN 'review' ELSE 'expiry_missed' END AS stuck_reason
    FROM found JOIN earmark.reservations r USING (id)
    WHERE r.tenant = $1
      AND ($2 = '' OR EXISTS (SELECT 1 FROM unnest(r.scopes) AS s WHERE s = $2 OR starts_with(s, $2 || '/')))
      AND (cardinality($12::text[]) = 0 OR earmark.scopes_within(r.scopes, $12))
      AND ($7::timestamptz IS NULL OR (r.created_at, r.id) < ($7, $8))
), page AS (
    SELECT id, created_at, stuck_reason,
           CASE stuck_reason WHEN 'orphan' THEN checked_at WHEN 'review' THEN expires_at WHEN 'expiry_missed' THEN expires_at END AS since
    FROM stuck WHERE $3 = '' OR stuck_reason = $3
    ORDER BY created_at DESC, id DESC LIMIT $9
)
SELECT earmark.reservation_json(r) || jsonb_build_object('stuck', jsonb_build_object('reason', p.stuck_reason, 'since', p.since,
           'age_seconds', greatest(0, coalesce(extract(epoch FROM clock_timestamp() - p.since), 0))::bigint))
FROM page p JOIN earmark.reservations r USING (id)
ORDER BY p.created_at DESC, p.id DESC
