-- $1 tenant, $2 the ages in seconds at which a group ends, $3 the maximum number of
-- reservations to count, $4 how many of the oldest to show,
-- $5 scopes: only reservations all of whose scopes are these or below them; empty for all.
-- The partial index on open reservations serves it, however many have settled.
WITH moment AS MATERIALIZED (SELECT clock_timestamp() AS now),
open AS NOT MATERIALIZED (
    SELECT r.id, r.state, r.amounts, r.created_at, r.orphan, r.state = 'held' AND r.expires_at < now AS overdue,
           width_bucket(date_part('epoch', now - r.created_at), $2::float8[]) AS age
    FROM moment, earmark.reservations r
    WHERE r.tenant = $1 AND r.state IN ('held', 'review') AND (cardinality($5::text[]) = 0 OR earmark.scopes_within(r.scopes, $5))
    LIMIT $3::bigint + 1
),
counts AS MATERIALIZED (
    SELECT age, count(*) AS reservations, count(*) FILTER (WHERE state = 'review') AS review,
           count(*) FILTER (WHERE overdue) AS overdue, count(*) FILTER (WHERE orphan) AS orphan
    FROM open GROUP BY age
),
amounts AS (
    SELECT age, jsonb_object_agg(unit, amount) AS amounts
    FROM (SELECT age, unit, least(sum(amount::bigint), 9223372036854775807) AS amount
          FROM open, jsonb_each_text(open.amounts) AS held (unit, amount)
          GROUP BY age, unit) s
    GROUP BY age
),
ages AS (
    SELECT jsonb_agg(jsonb_build_object('from_seconds', coalesce(($2::bigint[])[age], 0), 'to_seconds', ($2::bigint[])[age + 1],
               'reservations', coalesce(reservations, 0), 'amounts', coalesce(amounts, '{}')) ORDER BY age) AS ages
    FROM generate_series(0, cardinality($2::bigint[])) AS g (age) LEFT JOIN counts USING (age) LEFT JOIN amounts USING (age)
),
oldest AS (
    SELECT coalesce(jsonb_agg(earmark.reservation_json(r) ORDER BY r.created_at, r.id), '[]') AS oldest
    FROM (SELECT id FROM open ORDER BY created_at, id LIMIT $4) o JOIN earmark.reservations r USING (id)
)
SELECT jsonb_build_object(
    'at', (SELECT now FROM moment),
    'held', coalesce(sum(reservations - review), 0), 'review', coalesce(sum(review), 0),
    'overdue', coalesce(sum(overdue), 0), 'orphan', coalesce(sum(orphan), 0),
    'complete', coalesce(sum(reservations), 0) <= $3,
    'ages', (SELECT ages FROM ages), 'oldest', (SELECT oldest FROM oldest))
FROM counts
