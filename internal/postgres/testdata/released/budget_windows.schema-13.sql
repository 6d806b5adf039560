-- $1 tenant, $2 id of a budget, $3 the start of the last window of the page before, $4 rows.
SELECT b.limit_amount, f.limit_amount, w.reserved, w.committed, w.window_start, w.window_end
FROM earmark.budgets b JOIN earmark.windows w ON w.budget_id = b.id CROSS JOIN LATERAL earmark.in_force(b, clock_timestamp()) f
WHERE b.tenant = $1 AND b.id = $2 AND ($3::timestamptz IS NULL OR w.window_start < $3)
ORDER BY w.window_start DESC
LIMIT $4
