-- The reserved amounts of open reservations, one row a unit: one pass over the partial
-- index of open reservations and their rows. A reservation is counted with the first of its
-- units; it has at least one.
SELECT u.unit,
       sum(u.amount::numeric)::float8,
       count(*) FILTER (WHERE u.n = 1 AND r.state = 'held'),
       count(*) FILTER (WHERE u.n = 1 AND r.state = 'review'),
       count(*) FILTER (WHERE u.n = 1 AND r.orphan),
       count(*) FILTER (WHERE u.n = 1 AND r.state = 'held' AND r.expires_at < now()),
       extract(epoch FROM now() - min(r.created_at))::float8,
       extract(epoch FROM now() - min(r.expires_at) FILTER (WHERE r.state = 'held'))::float8
FROM earmark.reservations r, jsonb_each_text(r.amounts) WITH ORDINALITY AS u (unit, amount, n)
WHERE r.state IN ('held', 'review')
GROUP BY u.unit
