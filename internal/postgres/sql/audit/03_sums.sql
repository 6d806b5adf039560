-- R3: each window's balance is the sum of its reservations, pruned ones included, and of its entries
SELECT count(*), count(*) FILTER (WHERE bad), coalesce((array_agg(what) FILTER (WHERE bad))[1:10], '{}')
FROM (
    SELECT w.reserved <> coalesce(o.reserved, 0) OR w.reserved <> coalesce(e.reserved, 0) OR w.committed <> coalesce(e.committed, 0) -- mutation: audit-sums
        OR w.committed <> coalesce(o.committed, 0) + coalesce(e.pruned, 0) AS bad,
           format('%s at %s: %s reserved and %s committed; reservations say %s and %s, entries %s and %s', w.budget_id, w.window_start,
                  w.reserved, w.committed, o.reserved, coalesce(o.committed, 0) + coalesce(e.pruned, 0), e.reserved, e.committed) AS what
    FROM earmark.windows w
         LEFT JOIN (
             SELECT s.budget_id, s.window_start, sum(s.reserved) FILTER (WHERE r.state IN ('held', 'review')) AS reserved, sum(s.committed) AS committed
             FROM earmark.reservation_budgets s JOIN earmark.reservations r ON r.id = s.reservation_id GROUP BY 1, 2
         ) AS o USING (budget_id, window_start)
         LEFT JOIN (
             SELECT budget_id, window_start, sum(reserved_delta) AS reserved, sum(committed_delta) AS committed,
                    sum(committed_delta) FILTER (WHERE kind = 'checkpoint') AS pruned
             FROM earmark.entries WHERE window_start IS NOT NULL GROUP BY 1, 2
         ) AS e USING (budget_id, window_start)
) AS checks
