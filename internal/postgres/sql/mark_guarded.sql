UPDATE earmark.reservations SET orphan = false WHERE id = ANY ($1) AND orphan
