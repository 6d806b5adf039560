-- $2 and $3 the position to read after, $4 types, none for all, $5 budget, $6 scopes: only events within them;
-- empty for all, $7 events.
-- Answers with the end of what can be read: every transaction below it has ended.
SELECT jsonb_build_object(
    'end', pg_snapshot_xmin(pg_current_snapshot())::text::bigint,
    'ahead', $2::text::xid8 > pg_snapshot_xmax(pg_current_snapshot()),
    'events', (
        SELECT coalesce(jsonb_agg(jsonb_build_object('id', 'evt_' || e.tx || '_' || e.id, 'type', e.type, 'created_at', e.created_at,
                   'scopes', e.scopes, 'budget_id', coalesce(e.budget_id, ''), 'reservation_id', coalesce(e.reservation_id, ''),
                   'window_start', e.window_start, 'data', e.data) ORDER BY e.tx, e.id), '[]')
        FROM (
            SELECT * FROM earmark.events
            WHERE tenant = $1
              AND (tx, id) > ($2::text::xid8, $3::bigint)
              AND tx < pg_snapshot_xmin(pg_current_snapshot())
              AND (cardinality($4::text[]) = 0 OR type = ANY ($4))
              AND ($5 = '' OR budget_id = $5)
              AND (cardinality($6::text[]) = 0 OR earmark.scopes_within(scopes, $6))
            ORDER BY tx, id LIMIT $7
        ) AS e))
