-- +goose Up
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
    state          text NOT NULL CHECK (state IN ('held', 'committed', 'released', 'expired', 'review')),
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
    on_expiry      text NOT NULL CHECK (on_expiry IN ('release', 'commit', 'review')),
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
    CONSTRAINT reservations_open_check CHECK (state NOT IN ('held', 'review') OR (settled_at IS NULL AND expires_at IS NOT NULL AND usage IS NULL)),
    CONSTRAINT reservations_settled_check CHECK (state IN ('held', 'review') OR settled_at IS NOT NULL),
    CONSTRAINT reservations_usage_check CHECK ((state = 'committed') = (usage IS NOT NULL)),
    CONSTRAINT reservations_estimated_check CHECK (NOT estimated OR state = 'committed')
) WITH (fillfactor = 85, autovacuum_vacuum_scale_factor = 0.05);

CREATE INDEX reservations_newest_idx ON earmark.reservations (tenant, created_at DESC, id DESC);
CREATE INDEX reservations_expiry_idx ON earmark.reservations (expires_at) WHERE state = 'held';
CREATE INDEX reservations_check_idx ON earmark.reservations (checked_at) WHERE state IN ('held', 'review');
CREATE INDEX reservations_refresh_idx ON earmark.reservations (checked_at) WHERE refresh_due;

-- A reservation's share in each budget it touches, in the window it was made in (R7).
CREATE TABLE earmark.reservation_budgets (
    reservation_id text COLLATE "C" NOT NULL REFERENCES earmark.reservations,
    budget_id      text COLLATE "C" NOT NULL,
    window_start   timestamptz NOT NULL,
    unit           text COLLATE "C" NOT NULL,
    reserved       bigint NOT NULL CHECK (reserved >= 0),
    committed      bigint NOT NULL DEFAULT 0 CHECK (committed >= 0),
    PRIMARY KEY (reservation_id, budget_id),
    FOREIGN KEY (budget_id, window_start) REFERENCES earmark.windows
) WITH (fillfactor = 85);

-- The journal: every change of a balance, and notes on what changed none (R4).
CREATE TABLE earmark.entries (
    id              bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    kind            text NOT NULL CHECK (kind IN ('reserve', 'commit', 'release', 'expire', 'charge', 'extend', 'review', 'reject', 'refuse', 'budget')),
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
    actor           text NOT NULL CHECK (actor <> ''),
    reason          text NOT NULL,
    created_at      timestamptz NOT NULL DEFAULT clock_timestamp(),
    CHECK (reservation_id IS NOT NULL OR budget_id IS NOT NULL),
    CHECK ((window_start IS NULL) = (reserved_after IS NULL)),
    CHECK (window_start IS NOT NULL OR (reserved_delta = 0 AND committed_delta = 0)),
    -- R1, once more where nothing can go around it.
    CONSTRAINT entries_admission_check CHECK (kind <> 'reserve' OR ceiling IS NULL OR reserved_after + committed_after <= ceiling)
);

CREATE INDEX entries_reservation_idx ON earmark.entries (reservation_id, id);
CREATE INDEX entries_budget_idx ON earmark.entries (budget_id, id);

-- +goose StatementBegin
CREATE FUNCTION earmark.refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'entries are append-only: % is refused (R4)', TG_OP USING ERRCODE = 'restrict_violation';
END $$;
-- +goose StatementEnd

CREATE TRIGGER entries_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON earmark.entries
    FOR EACH STATEMENT EXECUTE FUNCTION earmark.refuse_change();
-- Also where replication or a restore has switched ordinary triggers off.
ALTER TABLE earmark.entries ENABLE ALWAYS TRIGGER entries_append_only;

-- +goose Down
DROP SCHEMA earmark CASCADE;
