-- +goose Up
-- Prices of AI models: versions that are added and never changed.
CREATE TABLE earmark.price_versions (
    id         bigint PRIMARY KEY CHECK (id > 0),           -- 1, 2, 3 and so on, in the order of commit
    tenant     text COLLATE "C" REFERENCES earmark.tenants, -- null: the installation's, for all tenants
    prices     jsonb NOT NULL,                              -- entries, multipliers, fallback; see package prices
    source     text NOT NULL,
    actor      text NOT NULL CHECK (actor <> ''),
    reason     text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp()
);

ALTER TABLE earmark.audit_log DROP CONSTRAINT audit_log_action_check, DROP CONSTRAINT audit_log_before_check;
ALTER TABLE earmark.audit_log
    ADD CONSTRAINT audit_log_action_check CHECK (action IN ('budget.create', 'budget.change', 'budget.archive', 'key.create', 'key.rotate', 'key.revoke',
                                                            'tenant.create', 'tenant.disable', 'tenant.enable', 'price.add')),
    ADD CONSTRAINT audit_log_before_check CHECK ((before IS NULL) = (action IN ('budget.create', 'key.create', 'tenant.create', 'price.add')));

-- +goose Down
ALTER TABLE earmark.audit_log DROP CONSTRAINT audit_log_action_check, DROP CONSTRAINT audit_log_before_check;
ALTER TABLE earmark.audit_log
    ADD CONSTRAINT audit_log_action_check CHECK (action IN ('budget.create', 'budget.change', 'budget.archive', 'key.create', 'key.rotate', 'key.revoke',
                                                            'tenant.create', 'tenant.disable', 'tenant.enable')),
    ADD CONSTRAINT audit_log_before_check CHECK ((before IS NULL) = (action IN ('budget.create', 'key.create', 'tenant.create')));
DROP TABLE earmark.price_versions CASCADE;
DELETE FROM earmark.function_sets;
