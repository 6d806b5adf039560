-- $1 tenant, $2 id of a budget, $3 the start of the last window of the page before, $4 rows.
SELECT b.limit_amount, earmark.add_granted(f.limit_amount, g.reserved, g.committed, g.remaining), w.reserved, w.committed, w.window_start, w.window_end,
       g.reserved, g.committed, g.remaining
FROM earmark.budgets x JOIN earmark.windows w ON w.budget_id = x.id
     CROSS JOIN LATERAL earmark.followed(x, clock_timestamp()) b CROSS JOIN LATERAL earmark.in_force(b, clock_timestamp()) f
     CROSS JOIN LATERAL earmark.granted_at(b, w.window_start, least(clock_timestamp(), w.window_end - interval '1 microsecond')) g
WHERE x.tenant = $1 AND x.id = $2 AND ($3::timestamptz IS NULL OR w.window_start < $3)
ORDER BY w.window_start DESC
LIMIT $4
