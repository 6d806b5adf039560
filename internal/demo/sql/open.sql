-- One demo at a time. A schema of that name without the mark is somebody else's.
SELECT pg_try_advisory_lock(hashtext('earmark demo')),
       NOT EXISTS (SELECT 1 FROM pg_namespace WHERE nspname = 'earmark_demo' AND obj_description(oid, 'pg_namespace') IS DISTINCT FROM 'scratch of earmark demo')
