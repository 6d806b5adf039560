-- A share knows when it is overdue, and what is free then.
DO $$
BEGIN
    IF EXISTS (SELECT FROM information_schema.columns WHERE table_schema = 'earmark' AND table_name = 'reservation_budgets' AND column_name = 'frees_on_expiry') THEN
        EXECUTE 'UPDATE earmark.reservation_budgets s SET overdue_at = r.expires_at, frees_on_expiry = true
                 FROM earmark.reservations r WHERE r.id = s.reservation_id AND r.state = ''held'' AND r.on_expiry = ''release''';
    END IF;
END $$;
