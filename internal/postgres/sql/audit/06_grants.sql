-- grants: each grant and each window have the sums of what grants bear of reservations, pruned ones included, no grant bears more than it is, and none of a rollover more than its window left
SELECT count(*), count(*) FILTER (WHERE bad), coalesce((array_agg(what) FILTER (WHERE bad))[1:10], '{}')
FROM (
    SELECT (g.reserved, g.committed) IS DISTINCT FROM (coalesce(p.reserved, 0), coalesce(p.committed, 0)) -- mutation: audit-grants
        OR g.amount::numeric < g.reserved::numeric + g.committed + g.voided AS bad,
           format('grant %s of %s: %s reserved, %s committed and %s voided; reservations say %s and %s', g.id, g.amount, g.reserved, g.committed, g.voided, p.reserved, p.committed) AS what
    FROM earmark.grants g
         LEFT JOIN (SELECT grant_id, sum(reserved) AS reserved, sum(committed) AS committed FROM earmark.reservation_grants GROUP BY 1) AS p ON p.grant_id = g.id
    UNION ALL
    SELECT (w.granted_reserved, w.granted_committed) IS DISTINCT FROM (coalesce(p.reserved, 0), coalesce(p.committed, 0))
        OR w.granted_reserved > w.reserved OR w.granted_committed > w.committed,
           format('%s at %s: grants bear %s of %s reserved and %s of %s committed; reservations say %s and %s', w.budget_id, w.window_start,
                  w.granted_reserved, w.reserved, w.granted_committed, w.committed, p.reserved, p.committed)
    FROM earmark.windows w
         LEFT JOIN (SELECT budget_id, window_start, sum(reserved) AS reserved, sum(committed) AS committed
                    FROM earmark.reservation_grants GROUP BY 1, 2) AS p USING (budget_id, window_start)
    UNION ALL
    SELECT p.committed > s.committed OR p.held > s.reserved OR p.reserved <> CASE WHEN r.state IN ('held', 'review') THEN p.held ELSE 0 END,
           format('%s, %s: grants bear %s of %s reserved and %s of %s committed for %s', r.id, r.state, p.held, s.reserved, p.committed, s.committed, p.budget_id)
    FROM (SELECT reservation_id, budget_id, sum(held) AS held, sum(reserved) AS reserved, sum(committed) AS committed
          FROM earmark.reservation_grants WHERE reservation_id <> '' GROUP BY 1, 2) AS p
         LEFT JOIN earmark.reservation_budgets s USING (reservation_id, budget_id) LEFT JOIN earmark.reservations r ON r.id = p.reservation_id
    UNION ALL
    SELECT g.amount > greatest(g.rolled_left, g.reserved + g.committed + g.voided, 0) OR g.effective_at <= g.rolled_from OR g.effective_at > b.rolled_until OR b.granted_until IS NULL, -- mutation: audit-rollover
           format('grant %s of %s: the window of %s left %s', g.id, g.amount, g.rolled_from, g.rolled_left)
    FROM earmark.grants g JOIN earmark.budgets b ON b.id = g.budget_id
    WHERE g.rolled_from IS NOT NULL
) AS checks
