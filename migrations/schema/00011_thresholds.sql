-- +goose Up
-- Thresholds of a budget: [{"percent": 80, "of": "committed"}, {"amount": 500, "of": "used"}]; null without any.
ALTER TABLE earmark.budgets ADD COLUMN thresholds jsonb;

-- The next amount of committed, and of committed + reserved, that crosses a threshold; null if none is left. So
-- earmark.post only compares.
ALTER TABLE earmark.windows ADD COLUMN next_committed bigint, ADD COLUMN next_used bigint;

-- +goose Down
-- Functions take rows of these tables; without a record of their set, the next `earmark migrate up` makes them anew.
ALTER TABLE earmark.windows DROP COLUMN next_committed, DROP COLUMN next_used;
ALTER TABLE earmark.budgets DROP COLUMN thresholds;
DELETE FROM earmark.function_sets;
