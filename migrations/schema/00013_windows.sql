-- +goose Up
-- Windows of minutes, of years, of several periods, and from an anchor. Of a rolling one, `every` is the length in
-- minutes, and that of a slice in seconds.
ALTER TABLE earmark.budgets
    ADD COLUMN every integer NOT NULL DEFAULT 1 CHECK (every >= 1), -- periods in one window
    ADD COLUMN anchor timestamp, -- a start of a window in local time; null: 2001-01-01
    DROP CONSTRAINT budgets_period_check;
ALTER TABLE earmark.budgets
    ADD CONSTRAINT budgets_period_check CHECK (period IN ('lifetime', 'minute', 'hour', 'day', 'week', 'month', 'year', 'rolling')),
    ADD CONSTRAINT budgets_lifetime_check CHECK (period <> 'lifetime' OR (every = 1 AND anchor IS NULL));

DROP INDEX earmark.budgets_scope_unit_period_key;
CREATE UNIQUE INDEX budgets_scope_unit_period_key ON earmark.budgets (tenant, scope, unit, period, every) WHERE archived_at IS NULL;

-- +goose Down
-- It fails while a budget has such a window. Functions take values of these types; without a record of their set, the
-- next `earmark migrate up` makes them anew.
ALTER TYPE earmark.affected_budget DROP ATTRIBUTE IF EXISTS slice, DROP ATTRIBUTE IF EXISTS other_reserved, DROP ATTRIBUTE IF EXISTS other_committed;
DROP INDEX earmark.budgets_scope_unit_period_key;
CREATE UNIQUE INDEX budgets_scope_unit_period_key ON earmark.budgets (tenant, scope, unit, period) WHERE archived_at IS NULL;
ALTER TABLE earmark.budgets DROP CONSTRAINT budgets_period_check, DROP CONSTRAINT budgets_lifetime_check;
ALTER TABLE earmark.budgets ADD CONSTRAINT budgets_period_check CHECK (period IN ('lifetime', 'hour', 'day', 'week', 'month'));
ALTER TABLE earmark.budgets DROP COLUMN every, DROP COLUMN anchor;
DELETE FROM earmark.function_sets;
