-- $1 open holds, spread over the first $2 budgets under $3, of $4 each. They end
-- tomorrow, and the reconciler has just looked at them: neither it nor the sweeper
-- is to be measured here.
WITH budget AS (
    SELECT row_number() OVER (ORDER BY id) - 1 AS place, id, scope FROM earmark.budgets WHERE starts_with(scope, $3::text)
), hold AS (
    SELECT n, n / $2::int AS nth, b.id AS budget_id, b.scope,
           'rsv_' || left(translate(encode(sha256(('hold' || n)::bytea), 'hex'), '0189', 'ghij'), 52) AS id
    FROM generate_series(0, $1::bigint - 1) AS n JOIN budget b ON b.place = n % $2::int
), windows AS (
    INSERT INTO earmark.windows (budget_id, window_start, reserved)
    SELECT budget_id, 'epoch', count(*) * $4::bigint FROM hold GROUP BY budget_id
), reservations AS (
    INSERT INTO earmark.reservations (id, tenant, state, request_hash, scopes, amounts, on_expiry, workflow_id, expires_at, checked_at)
    SELECT id, 'default', 'held', md5(id), ARRAY [scope], jsonb_build_object('tokens', $4::bigint), 'release', 'reservation-' || id,
           clock_timestamp() + interval '1 day', clock_timestamp() + interval '1 day'
    FROM hold
), shares AS (
    INSERT INTO earmark.reservation_budgets (reservation_id, budget_id, window_start, unit, reserved)
    SELECT id, budget_id, 'epoch', 'tokens', $4::bigint FROM hold
)
INSERT INTO earmark.entries (kind, tenant, reservation_id, budget_id, window_start, reserved_delta, reserved_after, committed_after, ceiling, actor, reason)
SELECT 'reserve', 'default', id, budget_id, 'epoch', $4::bigint, (nth + 1) * $4::bigint, 0, 1000000000000000, 'bench', '' FROM hold ORDER BY n
