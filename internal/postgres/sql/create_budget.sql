WITH created AS (
    INSERT INTO earmark.budgets (id, tenant, scope, unit, limit_amount, period, timezone, enforcement, soft_ceiling, overage)
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)
    RETURNING id, tenant, limit_amount
)
SELECT earmark.note('budget', c.tenant, NULL, c.id, $11, format('created with limit %s', c.limit_amount))
FROM created c
