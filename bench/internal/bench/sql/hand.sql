-- What applications keep by hand, and budgets of ours beside it; number 0 is for bursts.
CREATE SCHEMA hand;
CREATE TABLE hand.budgets (
    id           bigint PRIMARY KEY,
    limit_amount bigint NOT NULL,
    reserved     bigint NOT NULL DEFAULT 0,
    committed    bigint NOT NULL DEFAULT 0,
    version      bigint NOT NULL DEFAULT 0
) WITH (fillfactor = 50);
CREATE TABLE hand.log (
    id        bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    budget_id bigint NOT NULL,
    reserved  bigint NOT NULL,
    committed bigint NOT NULL
);
INSERT INTO hand.budgets (id, limit_amount) SELECT n, 1000000000000000 FROM generate_series(0, 1000) AS n;
INSERT INTO earmark.budgets (id, tenant, scope, unit, limit_amount, period, timezone, enforcement, overage)
SELECT 'bud_hand' || n, 'default', 'hand/b' || n, 'tokens', 1000000000000000, 'lifetime', 'UTC', 'hard', 'allow_with_overdraft'
FROM generate_series(0, 1000) AS n;
INSERT INTO earmark.budgets (id, tenant, scope, unit, limit_amount, period, timezone, enforcement, overage)
SELECT 'bud_root' || n, 'default', 'root' || n || '/b', 'tokens', 1000000000000000, 'lifetime', 'UTC', 'hard', 'allow_with_overdraft'
FROM generate_series(0, 1000) AS n;
ANALYZE;
