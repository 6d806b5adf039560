-- R7: every entry of a reservation is in the window that it was made in
SELECT count(*), count(*) FILTER (WHERE bad), coalesce((array_agg(what) FILTER (WHERE bad))[1:10], '{}')
FROM (
    SELECT s.window_start IS DISTINCT FROM e.window_start AS bad,
           format('entry %s of %s is in the window of %s', e.id, e.reservation_id, e.window_start) AS what
    FROM earmark.entries e
         LEFT JOIN earmark.reservation_budgets s ON s.reservation_id = e.reservation_id AND s.budget_id = e.budget_id
    WHERE e.reservation_id IS NOT NULL AND e.window_start IS NOT NULL
) AS checks
