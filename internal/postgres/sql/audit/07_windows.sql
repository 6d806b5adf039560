-- R7: every entry of a reservation is in the window that it was made in, which holds the moment when that was; no two windows of a budget overlap.
-- A charge has no lease, and its caller may name another moment.
SELECT count(*), count(*) FILTER (WHERE bad), coalesce((array_agg(what) FILTER (WHERE bad))[1:10], '{}')
FROM (
    SELECT s.window_start IS DISTINCT FROM e.window_start AS bad,
           format('entry %s of %s is in the window of %s', e.id, e.reservation_id, e.window_start) AS what
    FROM earmark.entries e
         LEFT JOIN earmark.reservation_budgets s ON s.reservation_id = e.reservation_id AND s.budget_id = e.budget_id
    WHERE e.reservation_id IS NOT NULL AND e.window_start IS NOT NULL
    UNION ALL
    SELECT r.created_at < w.window_start OR r.created_at >= w.window_end,
           format('reservation %s was made at %s, and its window of %s starts at %s', r.id, r.created_at, w.budget_id, w.window_start)
    FROM earmark.reservation_budgets s JOIN earmark.reservations r ON r.id = s.reservation_id
         JOIN earmark.windows w ON w.budget_id = s.budget_id AND w.window_start = s.window_start
    WHERE r.expires_at IS NOT NULL
    UNION ALL
    SELECT w.next_start < coalesce(w.window_end, 'infinity'), -- mutation: audit-overlap
           format('of %s the window that starts at %s ends at %s, after the next one starts, at %s', w.budget_id, w.window_start, coalesce(w.window_end, 'infinity'), w.next_start)
    FROM (SELECT budget_id, window_start, window_end, lead(window_start) OVER (PARTITION BY budget_id ORDER BY window_start) AS next_start
          FROM earmark.windows) AS w
    WHERE w.next_start IS NOT NULL
) AS checks
