SELECT earmark.result('same', r) FROM earmark.reservations r WHERE r.tenant = $1 AND r.id = $2
