-- $1 tenant, $2 the ages in seconds at which a group ends, $3 the most reservations to count, $4 how many of the oldest to show.
-- One pass over what is open, which the partial index finds however much has settled.
WITH moment AS MATERIALIZED (SELECT clock_timestamp() AS now),
counted AS MATERIALIZED (
    SELECT r.id, r.state, r.amounts, r.created_at, r.orphan,
           r.state = 'held' AND r.expires_at < now AS overdue,
           width_bucket(extract(epoch FROM now - r.created_at)::float8, $2::float8[]) AS age
    FROM moment, earmark.reservations r
    WHERE r.tenant = $1 AND r.state IN ('held', 'review')
    LIMIT $3::bigint + 1
),
amounts AS (
    SELECT age, unit, least(sum(amount::numeric), 9223372036854775807) AS amount
    FROM counted, jsonb_each_text(counted.amounts) AS held (unit, amount)
    GROUP BY age, unit
),
ages AS (
    SELECT age, ($2::bigint[])[age] AS from_seconds, ($2::bigint[])[age + 1] AS to_seconds,
           (SELECT count(*) FROM counted WHERE counted.age = g.age) AS reservations,
           (SELECT coalesce(jsonb_object_agg(unit, amount), '{}') FROM amounts WHERE amounts.age = g.age) AS amounts
    FROM generate_series(0, cardinality($2::bigint[])) AS g (age)
)
SELECT jsonb_build_object(
    'at', (SELECT now FROM moment),
    'held', count(*) FILTER (WHERE state = 'held'),
    'review', count(*) FILTER (WHERE state = 'review'),
    'overdue', count(*) FILTER (WHERE overdue),
    'orphan', count(*) FILTER (WHERE orphan),
    'complete', count(*) <= $3,
    'ages', (SELECT jsonb_agg(jsonb_build_object('from_seconds', coalesce(from_seconds, 0), 'to_seconds', to_seconds,
        'reservations', reservations, 'amounts', amounts) ORDER BY age) FROM ages),
    'oldest', (SELECT coalesce(jsonb_agg(earmark.reservation_json(r) ORDER BY r.created_at, r.id), '[]')
        FROM (SELECT id FROM counted ORDER BY created_at, id LIMIT $4) o JOIN earmark.reservations r USING (id)))
FROM counted
