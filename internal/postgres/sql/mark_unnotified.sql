UPDATE earmark.reservations SET refresh_due = true WHERE tenant = $1 AND id = $2 AND state NOT IN ('held', 'review') AND NOT refresh_due
