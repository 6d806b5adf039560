-- Puts back what strip.sql took off.
DO $$
DECLARE
    v record;
BEGIN
    FOR v IN SELECT sql FROM bench.undone ORDER BY sql LIKE '%FOREIGN KEY%', place LOOP
        EXECUTE v.sql;
    END LOOP;
END $$;
