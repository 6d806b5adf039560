SELECT id FROM earmark.reservations WHERE tenant = $1 AND id = ANY ($2)
