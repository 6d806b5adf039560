-- $3 no open workflow guards the reservation; $4 the workflow needs no notification
UPDATE earmark.reservations SET orphan = $3 AND state IN ('held', 'review'), refresh_due = refresh_due AND NOT $4
WHERE tenant = $1 AND id = $2 AND (orphan, refresh_due) IS DISTINCT FROM ($3 AND state IN ('held', 'review'), refresh_due AND NOT $4)
