-- R5: each reservation was reserved or charged once, and committed at most once
SELECT count(*), count(*) FILTER (WHERE bad), coalesce((array_agg(what) FILTER (WHERE bad))[1:10], '{}')
FROM (
    SELECT count(*) FILTER (WHERE e.kind IN ('reserve', 'charge')) <> 1 OR count(*) FILTER (WHERE e.kind = 'commit') > 1
        OR count(*) FILTER (WHERE e.kind IN ('release', 'expire')) > 1 AS bad,
           format('%s has the entries %s for %s', s.reservation_id, string_agg(e.kind, ', ' ORDER BY e.id), s.budget_id) AS what
    FROM earmark.reservation_budgets s
         LEFT JOIN earmark.entries e ON e.reservation_id = s.reservation_id AND e.budget_id = s.budget_id
    GROUP BY s.reservation_id, s.budget_id
) AS checks
