-- The balances after $1 lifecycles over the first $2 budgets under $3, of $4 used each.
INSERT INTO earmark.windows (budget_id, window_start, committed)
SELECT id, 'epoch', ($1::bigint / $2::int + CASE WHEN place < $1::bigint % $2::int THEN 1 ELSE 0 END) * $4::bigint
FROM (SELECT id, row_number() OVER (ORDER BY id) - 1 AS place FROM earmark.budgets WHERE starts_with(scope, $3::text)) AS budget
