SELECT earmark.reservation_json(r) FROM earmark.reservations r WHERE r.tenant = $1 AND r.id = $2
