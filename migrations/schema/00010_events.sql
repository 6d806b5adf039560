-- +goose Up
-- Events: what happened to budgets and reservations. Each row is written in the transaction of its cause.
CREATE TABLE earmark.events (
    id             bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    tx             xid8 NOT NULL DEFAULT pg_current_xact_id(), -- with id the order of the feed, see ../functions/events.sql
    tenant         text COLLATE "C" NOT NULL,
    type           text NOT NULL,
    scopes         text[] COLLATE "C" NOT NULL, -- of the budget or the reservation: who may see it
    budget_id      text COLLATE "C",
    reservation_id text COLLATE "C",
    window_start   timestamptz,
    data           jsonb NOT NULL,
    created_at     timestamptz NOT NULL DEFAULT clock_timestamp()
);

CREATE INDEX events_feed_idx ON earmark.events (tenant, tx, id);
CREATE INDEX events_budget_idx ON earmark.events (tenant, budget_id, tx, id) WHERE budget_id IS NOT NULL;
CREATE INDEX events_age_idx ON earmark.events (created_at);

-- The denials of a budget since its last event reservation.denied.
CREATE TABLE earmark.denials (
    budget_id    text COLLATE "C" PRIMARY KEY REFERENCES earmark.budgets,
    pending      bigint NOT NULL DEFAULT 0,
    emitted_at   timestamptz, -- when the last event was written
    exhausted_in timestamptz  -- the start of the last window for which budget.exhausted was written
) WITH (fillfactor = 70);

-- +goose Down
DROP TABLE earmark.denials, earmark.events CASCADE;
DELETE FROM earmark.function_sets; -- the next `earmark migrate up` makes the functions anew
