-- The rows of lifecycles $1 to $2 - 1, spread over the first $3 budgets under $4: $5
-- reserved, $6 used, in the order in which they would have been written. A million
-- of them make 30 days.
WITH budget AS MATERIALIZED (
    SELECT array_agg(id ORDER BY id) AS ids, array_agg(scope ORDER BY id) AS scopes FROM earmark.budgets WHERE starts_with(scope, $4::text)
), lifecycle AS MATERIALIZED (
    SELECT n, n / $3::int AS nth, b.ids[1 + n % $3::int] AS budget_id, b.scopes[1 + n % $3::int] AS scope,
           'rsv_' || left(translate(encode(sha256(('settled' || n)::bytea), 'hex'), '0189', 'ghij'), 52) AS id,
           transaction_timestamp() - interval '30 days' + (n % 1000000) * interval '2.5 seconds' AS at
    FROM budget b, generate_series($1::bigint, $2::bigint - 1) AS n
), reservations AS (
    INSERT INTO earmark.reservations (id, tenant, state, request_hash, scopes, amounts, usage, on_expiry, workflow_id, created_at, expires_at, settled_at, checked_at)
    SELECT id, 'default', 'committed', md5(id), ARRAY [scope], jsonb_build_object('tokens', $5::bigint), jsonb_build_object('tokens', $6::bigint),
           'release', 'reservation-' || id, at, at + interval '5 minutes', at + interval '2 seconds', at
    FROM lifecycle
), shares AS (
    INSERT INTO earmark.reservation_budgets (reservation_id, budget_id, window_start, unit, reserved, committed)
    SELECT id, budget_id, 'epoch', 'tokens', $5::bigint, $6::bigint FROM lifecycle
)
INSERT INTO earmark.entries (kind, tenant, reservation_id, budget_id, window_start, reserved_delta, committed_delta, reserved_after, committed_after, ceiling, actor, reason, created_at)
SELECT e.kind, 'default', l.id, l.budget_id, 'epoch', e.reserved, e.committed, e.reserved_after, l.nth * $6::bigint + e.committed, e.ceiling, 'workflow', '', l.at
FROM lifecycle l CROSS JOIN LATERAL (
    VALUES ('reserve', $5::bigint, 0::bigint, $5::bigint, 1000000000000000), ('commit', -$5::bigint, $6::bigint, 0::bigint, NULL)
) AS e (kind, reserved, committed, reserved_after, ceiling)
