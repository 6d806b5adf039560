-- +goose Up
-- Overrides: changes of a budget's limit for a time, on top of it.
-- When the last override ends; null if there is none. An admission to a budget without overrides does not look for them.
-- This lock comes before the weaker one of the reference below: with that one alone, a call that waits for it would be in a deadlock.
ALTER TABLE earmark.budgets ADD COLUMN overridden_until timestamptz;

CREATE TABLE earmark.overrides (
    id           text COLLATE "C" PRIMARY KEY, -- derived from the budget and the idempotency key, so that a repeated call applies once (R5)
    tenant       text COLLATE "C" NOT NULL,
    budget_id    text COLLATE "C" NOT NULL REFERENCES earmark.budgets,
    request_hash text COLLATE "C" NOT NULL,
    source       text NOT NULL CHECK (source IN ('manual', 'reset')),
    amount       bigint NOT NULL CHECK (amount <> 0 OR source = 'reset'), -- added to the limit while it is in force
    effective_at timestamptz NOT NULL,
    expires_at   timestamptz, -- null: never
    ended_at     timestamptz, -- when it was ended by hand
    reason       text NOT NULL CHECK (reason <> ''),
    created_at   timestamptz NOT NULL DEFAULT clock_timestamp(),
    CHECK (expires_at > effective_at)
);

CREATE INDEX overrides_budget_idx ON earmark.overrides (budget_id, created_at DESC, id DESC);

ALTER TABLE earmark.audit_log DROP CONSTRAINT audit_log_action_check, DROP CONSTRAINT audit_log_before_check;
ALTER TABLE earmark.audit_log
    ADD CONSTRAINT audit_log_action_check CHECK (action IN ('budget.create', 'budget.change', 'budget.archive', 'key.create', 'key.rotate', 'key.revoke',
                                                            'tenant.create', 'tenant.disable', 'tenant.enable', 'price.add',
                                                            'override.create', 'override.end')),
    ADD CONSTRAINT audit_log_before_check CHECK ((before IS NULL) = (action LIKE '%.create' OR action = 'price.add'));

-- +goose Down
-- Functions take rows of these tables; without a record of their set, the next `earmark migrate up` makes them anew.
ALTER TABLE earmark.audit_log DROP CONSTRAINT audit_log_action_check, DROP CONSTRAINT audit_log_before_check;
ALTER TABLE earmark.audit_log
    ADD CONSTRAINT audit_log_action_check CHECK (action IN ('budget.create', 'budget.change', 'budget.archive', 'key.create', 'key.rotate', 'key.revoke',
                                                            'tenant.create', 'tenant.disable', 'tenant.enable', 'price.add')),
    ADD CONSTRAINT audit_log_before_check CHECK ((before IS NULL) = (action IN ('budget.create', 'key.create', 'tenant.create', 'price.add')));
DROP TABLE earmark.overrides CASCADE;
ALTER TABLE earmark.budgets DROP COLUMN overridden_until;
DELETE FROM earmark.function_sets;
