-- +goose Up
-- Rollover, 3 of 3: how much of what a window leaves the next ones get, {max, max_total, windows}.
ALTER TABLE earmark.budgets
    ADD COLUMN rollover jsonb,            -- null: nothing
    ADD COLUMN rolled_until timestamptz;  -- windows that start before have rolled over, or began before the setting; null: none rolls over, as of a template

-- +goose Down
ALTER TABLE earmark.budgets DROP COLUMN rollover, DROP COLUMN rolled_until;
DELETE FROM earmark.function_sets; -- see 00018
