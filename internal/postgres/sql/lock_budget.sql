SELECT limit_amount, enforcement, soft_ceiling, overage, archived_at FROM earmark.budgets WHERE tenant = $1 AND id = $2 FOR NO KEY UPDATE
