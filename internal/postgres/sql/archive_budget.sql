UPDATE earmark.budgets SET archived_at = clock_timestamp() WHERE tenant = $1 AND id = $2 AND archived_at IS NULL
