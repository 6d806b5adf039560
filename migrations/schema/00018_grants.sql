-- +goose Up
-- Grants, 4 of 4: amounts on top of a budget's limit that are used up once, such as prepaid credits.
-- When the last grant ends; null if there never was one. An admission to a budget without grants does not look for them.
-- This lock comes before the weaker one of the reference below, see 00009.
ALTER TABLE earmark.budgets
    ADD COLUMN granted_until timestamptz,
    ADD COLUMN allowance text NOT NULL DEFAULT 'first', -- whether a window's own limit is used before the grants, or after them
    ADD CONSTRAINT budgets_allowance_check CHECK (allowance = 'first' OR (allowance = 'last' AND period <> 'rolling')) NOT VALID;

CREATE TABLE earmark.grants (
    id           text COLLATE "C" PRIMARY KEY, -- derived from the budget and the idempotency key, so that a repeated call applies once (R5)
    tenant       text COLLATE "C" NOT NULL,
    budget_id    text COLLATE "C" NOT NULL REFERENCES earmark.budgets,
    request_hash text COLLATE "C" NOT NULL,
    amount       bigint NOT NULL CHECK (amount > 0),
    reserved     bigint NOT NULL DEFAULT 0 CHECK (reserved >= 0),
    committed    bigint NOT NULL DEFAULT 0 CHECK (committed >= 0),
    voided       bigint NOT NULL DEFAULT 0 CHECK (voided >= 0), -- what the void took away
    priority     integer NOT NULL, -- the lower is used first
    effective_at timestamptz NOT NULL,
    expires_at   timestamptz, -- null: never
    voided_at    timestamptz,
    expiry_noted boolean NOT NULL DEFAULT false, -- whether the journal says what expired unused
    reason       text NOT NULL CHECK (reason <> ''),
    created_at   timestamptz NOT NULL DEFAULT clock_timestamp(),
    CHECK (expires_at > effective_at),
    CHECK (amount - reserved - committed - voided >= 0)
) WITH (fillfactor = 80);

CREATE INDEX grants_budget_idx ON earmark.grants (budget_id, created_at DESC, id DESC);
CREATE INDEX grants_expiry_idx ON earmark.grants (expires_at) WHERE voided_at IS NULL AND NOT expiry_noted;

-- What a grant bears of a reservation, without a reference: the transaction that makes a row has locked the grant, and none is removed. The row without a reservation stands for those that were pruned, in one window.
CREATE TABLE earmark.reservation_grants (
    reservation_id text COLLATE "C" NOT NULL,
    grant_id       text COLLATE "C" NOT NULL,
    budget_id      text COLLATE "C" NOT NULL,
    window_start   timestamptz NOT NULL,
    held           bigint NOT NULL DEFAULT 0, -- of the reserved amount, by the admission; it stays
    reserved       bigint NOT NULL DEFAULT 0 CHECK (reserved >= 0),
    committed      bigint NOT NULL DEFAULT 0 CHECK (committed >= 0),
    PRIMARY KEY (reservation_id, grant_id, window_start)
) WITH (fillfactor = 85);

-- For the lease ends of holds on grants, in a denial.
CREATE INDEX reservation_grants_open_idx ON earmark.reservation_grants (budget_id, window_start) WHERE reserved > 0;

-- +goose Down
-- Functions take rows of these tables and values of this type; without a record of their set, the next
-- `earmark migrate up` makes them anew.
ALTER TYPE earmark.affected_budget DROP ATTRIBUTE IF EXISTS granted_reserved, DROP ATTRIBUTE IF EXISTS granted_committed, DROP ATTRIBUTE IF EXISTS grants_left,
    DROP ATTRIBUTE IF EXISTS own_room, DROP ATTRIBUTE IF EXISTS grants;
DROP TABLE earmark.reservation_grants;
DROP TABLE earmark.grants CASCADE;
ALTER TABLE earmark.budgets DROP COLUMN granted_until, DROP COLUMN allowance;
DELETE FROM earmark.function_sets;
