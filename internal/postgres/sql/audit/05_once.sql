-- R5: each reservation was reserved or charged once, committed at most once, estimated at most once before that, and corrected once by each correction
SELECT count(*), count(*) FILTER (WHERE bad), coalesce((array_agg(what) FILTER (WHERE bad))[1:10], '{}')
FROM (
    SELECT count(*) FILTER (WHERE e.kind IN ('reserve', 'charge')) <> 1 OR count(*) FILTER (WHERE e.kind = 'commit') > 1
        OR count(*) FILTER (WHERE e.kind = 'estimate') > 1 OR max(e.id) FILTER (WHERE e.kind = 'estimate') > min(e.id) FILTER (WHERE e.kind = 'commit')
        OR count(*) FILTER (WHERE e.kind IN ('release', 'expire')) > 1
        OR count(*) FILTER (WHERE e.kind = 'correction')
           <> (SELECT count(*) FROM earmark.corrections c WHERE c.reservation_id = s.reservation_id AND c.amounts ? s.unit) AS bad, -- mutation: audit-corrections
           format('%s has the entries %s for %s', s.reservation_id, string_agg(e.kind, ', ' ORDER BY e.id), s.budget_id) AS what
    FROM earmark.reservation_budgets s
         LEFT JOIN earmark.entries e ON e.reservation_id = s.reservation_id AND e.budget_id = s.budget_id
    GROUP BY s.reservation_id, s.budget_id, s.unit
) AS checks
