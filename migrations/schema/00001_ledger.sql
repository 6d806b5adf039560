-- +goose Up
-- Tables, types and indexes. The functions are in ../functions; no numbered step calls one.
CREATE SCHEMA earmark;

-- A budget is a limit on one scope in one unit over one window.
CREATE TABLE earmark.budgets (
    id           text COLLATE "C" PRIMARY KEY,
    tenant       text COLLATE "C" NOT NULL,
    scope        text COLLATE "C" NOT NULL,
    unit         text COLLATE "C" NOT NULL,
    limit_amount bigint NOT NULL CHECK (limit_amount >= 0),
    period       text NOT NULL CHECK (period IN ('lifetime', 'hour', 'day', 'week', 'month')),
    timezone     text NOT NULL,
    enforcement  text NOT NULL CHECK (enforcement IN ('hard', 'soft')),
    soft_ceiling bigint,
    overage      text NOT NULL CHECK (overage IN ('allow_with_overdraft', 'allow_if_available', 'reject')),
    created_at   timestamptz NOT NULL DEFAULT clock_timestamp(),
    archived_at  timestamptz,
    CONSTRAINT budgets_soft_ceiling_check CHECK (soft_ceiling IS NULL OR (enforcement = 'soft' AND soft_ceiling >= limit_amount))
) WITH (fillfactor = 80);

CREATE UNIQUE INDEX budgets_scope_unit_period_key ON earmark.budgets (tenant, scope, unit, period) WHERE archived_at IS NULL;
CREATE INDEX budgets_newest_idx ON earmark.budgets (tenant, created_at DESC, id DESC);

-- A window row appears when it is first needed. Its sums always equal those of
-- its open reservations and of its entries (R3); earmark.post alone changes them.
CREATE TABLE earmark.windows (
    budget_id    text COLLATE "C" NOT NULL REFERENCES earmark.budgets,
    window_start timestamptz NOT NULL,
    window_end   timestamptz,
    reserved     bigint NOT NULL DEFAULT 0 CHECK (reserved >= 0),
    committed    bigint NOT NULL DEFAULT 0 CHECK (committed >= 0),
    PRIMARY KEY (budget_id, window_start),
    -- Also refuses a sum beyond int64, as out of range (R8).
    CONSTRAINT windows_sum_check CHECK (reserved + committed >= 0),
    CHECK (window_end > window_start)
) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 500);

CREATE TABLE earmark.reservations (
    id             text COLLATE "C" PRIMARY KEY,
    tenant         text COLLATE "C" NOT NULL,
    state          text NOT NULL,
    request_hash   text COLLATE "C" NOT NULL,
    scopes         text[] COLLATE "C" NOT NULL,
    amounts        jsonb NOT NULL,
    usage          jsonb,
    overage        jsonb,
    shortfall      jsonb,
    rejected_usage jsonb,
    late           boolean NOT NULL DEFAULT false,
    estimated      boolean NOT NULL DEFAULT false,
    over_limit     boolean NOT NULL DEFAULT false,
    on_expiry      text NOT NULL,
    reason         text NOT NULL DEFAULT '',
    metadata       jsonb NOT NULL DEFAULT '{}',
    workflow_id    text COLLATE "C" NOT NULL DEFAULT '', -- empty for usage charged without a reservation
    created_at     timestamptz NOT NULL DEFAULT clock_timestamp(),
    expires_at     timestamptz,
    settled_at     timestamptz,
    -- For the reconciler: when the workflow was last looked for, whether it was
    -- missing, and whether it may still be open although the row was settled past it.
    checked_at     timestamptz NOT NULL DEFAULT clock_timestamp(),
    orphan         boolean NOT NULL DEFAULT false,
    refresh_due    boolean NOT NULL DEFAULT false,
    -- The attempts at a commit that were refused, newest first. A message of such an attempt may
    -- reach the workflow when nothing refuses it any more.
    refused_attempts text[] COLLATE "C"
) WITH (fillfactor = 85, autovacuum_vacuum_scale_factor = 0.05);

CREATE INDEX reservations_newest_idx ON earmark.reservations (tenant, created_at DESC, id DESC);
CREATE INDEX reservations_expiry_idx ON earmark.reservations (expires_at) WHERE state = 'held';
CREATE INDEX reservations_check_idx ON earmark.reservations (checked_at) WHERE state IN ('held', 'review');
CREATE INDEX reservations_refresh_idx ON earmark.reservations (checked_at) WHERE refresh_due;
CREATE INDEX reservations_review_idx ON earmark.reservations (id) WHERE state = 'review';
CREATE INDEX reservations_orphan_idx ON earmark.reservations (id) WHERE orphan;

-- A reservation's share in each budget it touches, in the window it was made in (R7).
CREATE TABLE earmark.reservation_budgets (
    reservation_id text COLLATE "C" NOT NULL REFERENCES earmark.reservations,
    budget_id      text COLLATE "C" NOT NULL,
    window_start   timestamptz NOT NULL,
    unit           text COLLATE "C" NOT NULL,
    reserved       bigint NOT NULL CHECK (reserved >= 0),
    committed      bigint NOT NULL DEFAULT 0 CHECK (committed >= 0),
    -- When a held reservation is overdue; null for any other, so that the index holds those alone.
    overdue_at     timestamptz,
    -- Whether the amount is free again then: the policy is 'release'.
    frees_on_expiry boolean NOT NULL DEFAULT false,
    PRIMARY KEY (reservation_id, budget_id),
    FOREIGN KEY (budget_id, window_start) REFERENCES earmark.windows
) WITH (fillfactor = 85);

CREATE INDEX reservation_budgets_overdue_idx ON earmark.reservation_budgets (budget_id, window_start, frees_on_expiry, overdue_at)
    WHERE overdue_at IS NOT NULL AND reserved > 0;

-- The journal: every change of a balance, and notes on events that change none (R4).
-- The rules for a row of reservations or entries are in functions/integrity.sql.
CREATE TABLE earmark.entries (
    id              bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    kind            text NOT NULL,
    tenant          text COLLATE "C" NOT NULL,
    reservation_id  text COLLATE "C",
    budget_id       text COLLATE "C",
    window_start    timestamptz,
    reserved_delta  bigint NOT NULL DEFAULT 0,
    committed_delta bigint NOT NULL DEFAULT 0,
    -- The window after this entry, and the limit it was admitted under (null: none).
    reserved_after  bigint,
    committed_after bigint,
    ceiling         bigint,
    actor           text NOT NULL,
    reason          text NOT NULL,
    created_at      timestamptz NOT NULL DEFAULT clock_timestamp(),
    -- Of a checkpoint: how many entries and reservations it stands for. It takes the place of the last
    -- entry that earmark.prune removed from its window.
    pruned_entries      bigint,
    pruned_reservations bigint,
    -- The limit holds (R1), even for a statement that does not go through earmark.reserve.
    CONSTRAINT entries_admission_check CHECK (kind <> 'reserve' OR ceiling IS NULL OR reserved_after + committed_after <= ceiling) -- mutation: ceiling-check
);

CREATE INDEX entries_reservation_idx ON earmark.entries (reservation_id, id);
CREATE INDEX entries_budget_idx ON earmark.entries (budget_id, id);
CREATE UNIQUE INDEX entries_checkpoint_key ON earmark.entries (budget_id, window_start) WHERE kind = 'checkpoint';

-- One budget that a request affects, with its window and balance.
CREATE TYPE earmark.affected_budget AS (
    budget_id text, scope text, unit text, period text, limit_amount bigint,
    ceiling   bigint, -- null: no ceiling
    window_start timestamptz, window_end timestamptz, reserved bigint, committed bigint
);

-- Each set of functions that `earmark migrate up` has applied, by its checksum; the newest is in force.
CREATE TABLE earmark.function_sets (
    checksum    text COLLATE "C" PRIMARY KEY, -- of the files
    fingerprint text NOT NULL,                -- of what they left in the database, see earmark.functions_fingerprint
    applied_at  timestamptz NOT NULL DEFAULT clock_timestamp()
);

-- +goose Down
DROP SCHEMA earmark CASCADE;
