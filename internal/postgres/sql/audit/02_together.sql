-- R2: every budget of a reservation changed together, at admission and at settlement
SELECT count(*), count(*) FILTER (WHERE bad), coalesce((array_agg(what) FILTER (WHERE bad))[1:10], '{}')
FROM (
    SELECT r.state IN ('held', 'review') AND (coalesce(e.reserved, 0) <> s.reserved OR coalesce(e.committed, 0) <> 0)
        OR r.state NOT IN ('held', 'review') AND (coalesce(e.reserved, 0) <> 0 OR coalesce(e.committed, 0) <> s.committed)
        OR r.state IN ('released', 'expired') AND s.committed <> 0
        OR s.overdue_at IS DISTINCT FROM CASE r.state WHEN 'held' THEN r.expires_at END
        OR r.state = 'held' AND s.frees_on_expiry <> (r.on_expiry = 'release') AS bad,
           format('%s, %s: its entries sum to %s reserved and %s committed for %s, where it is overdue from %s', r.id, r.state, e.reserved, e.committed, s.budget_id,
                  coalesce(s.overdue_at::text, 'never')) AS what
    FROM earmark.reservations r
         JOIN earmark.reservation_budgets s ON s.reservation_id = r.id
         LEFT JOIN (
             SELECT reservation_id, budget_id, sum(reserved_delta) AS reserved, sum(committed_delta) AS committed
             FROM earmark.entries WHERE window_start IS NOT NULL GROUP BY 1, 2
         ) AS e ON e.reservation_id = s.reservation_id AND e.budget_id = s.budget_id
) AS checks
