-- Since migration growth a share knows when it is overdue.
DO $$
BEGIN
    IF EXISTS (SELECT FROM information_schema.columns WHERE table_schema = 'earmark' AND table_name = 'reservation_budgets' AND column_name = 'overdue_at') THEN
        EXECUTE 'UPDATE earmark.reservation_budgets s SET overdue_at = r.expires_at
                 FROM earmark.reservations r WHERE r.id = s.reservation_id AND r.state = ''held'' AND r.on_expiry = ''release''';
    END IF;
END $$;
