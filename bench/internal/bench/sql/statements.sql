-- Tables of the same form as the ledger's, for statements without its functions.
CREATE SCHEMA bench;
CREATE TABLE bench.windows (LIKE earmark.windows INCLUDING ALL);
CREATE TABLE bench.reservations (LIKE earmark.reservations INCLUDING ALL);
CREATE TABLE bench.reservation_budgets (LIKE earmark.reservation_budgets INCLUDING ALL);
CREATE TABLE bench.entries (LIKE earmark.entries INCLUDING ALL);
INSERT INTO bench.windows (budget_id, window_start) SELECT 'bench/b' || n, 'epoch' FROM generate_series(0, 999) AS n;
