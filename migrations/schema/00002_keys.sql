-- +goose Up
-- Tenants, API keys, and the audit log of changes of budgets, keys and tenants.
CREATE TABLE earmark.tenants (
    id          text COLLATE "C" PRIMARY KEY,
    created_at  timestamptz NOT NULL DEFAULT clock_timestamp(),
    disabled_at timestamptz -- its keys do not work while this is set
);

CREATE TABLE earmark.keys (
    id           text COLLATE "C" PRIMARY KEY CHECK (id ~ '^[a-z0-9]{12}$'),
    tenant       text COLLATE "C" NOT NULL REFERENCES earmark.tenants,
    name         text NOT NULL,
    role         text NOT NULL CHECK (role IN ('read', 'settle', 'reserve', 'operate', 'admin')),
    scopes       text[] COLLATE "C" NOT NULL,                    -- empty: all
    hash         bytea NOT NULL CHECK (octet_length(hash) = 32), -- SHA-256 of the secret
    created_at   timestamptz NOT NULL DEFAULT clock_timestamp(),
    expires_at   timestamptz CHECK (expires_at >= created_at),
    revoked_at   timestamptz,
    last_used_at timestamptz,                                    -- the start of the hour, in UTC
    replaced_by  text COLLATE "C" REFERENCES earmark.keys
);

CREATE INDEX keys_newest_idx ON earmark.keys (tenant, created_at DESC, id DESC);

CREATE TABLE earmark.audit_log (
    id         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    tenant     text COLLATE "C" NOT NULL,
    actor      text NOT NULL CHECK (actor <> ''),
    action     text NOT NULL CHECK (action IN ('budget.create', 'budget.change', 'budget.archive', 'key.create', 'key.rotate', 'key.revoke',
                                               'tenant.create', 'tenant.disable', 'tenant.enable')),
    subject    text COLLATE "C" NOT NULL CHECK (subject <> ''), -- id of the budget, the key or the tenant
    reason     text NOT NULL,
    before     jsonb, -- null where the subject did not exist
    after      jsonb NOT NULL,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    CONSTRAINT audit_log_before_check CHECK ((before IS NULL) = (action IN ('budget.create', 'key.create', 'tenant.create')))
);

CREATE INDEX audit_log_newest_idx ON earmark.audit_log (tenant, id DESC);

-- The tenants that own something already, found by one search of an index each.
INSERT INTO earmark.tenants (id) SELECT 'default' UNION SELECT tenant FROM earmark.budgets
UNION (
    WITH RECURSIVE owners AS (
        (SELECT tenant FROM earmark.reservations ORDER BY tenant LIMIT 1)
        UNION ALL
        SELECT (SELECT r.tenant FROM earmark.reservations r WHERE r.tenant > o.tenant ORDER BY r.tenant LIMIT 1) FROM owners o WHERE o.tenant IS NOT NULL
    )
    SELECT tenant FROM owners WHERE tenant IS NOT NULL
);

-- +goose Down
-- Functions take rows of these tables; without a record of their set, the next `earmark migrate up` makes them anew.
DROP TABLE earmark.audit_log, earmark.keys, earmark.tenants CASCADE;
DELETE FROM earmark.function_sets;
