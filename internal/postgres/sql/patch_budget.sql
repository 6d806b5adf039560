UPDATE earmark.budgets SET limit_amount = $3, enforcement = $4, soft_ceiling = $5, overage = $6 WHERE tenant = $1 AND id = $2
