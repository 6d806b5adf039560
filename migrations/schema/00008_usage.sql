-- +goose Up
-- Sums of the journal over time, from which usage reports are answered; see functions/usage.sql. Each is what
-- budget_id was charged in one bucket: in all (dimension ''), for one scope (dimension 'scope'), or for one value of
-- a metadata key (dimension 'metadata.KEY').
CREATE TABLE earmark.usage_rollups (
    budget_id text COLLATE "C" NOT NULL,
    dimension text COLLATE "C" NOT NULL,
    bucket    timestamptz NOT NULL,                   -- its start: a quarter of an hour with dimension '', else a day; cut at the window's start
    value     text COLLATE "C" NOT NULL,
    other     boolean NOT NULL DEFAULT false,         -- the sum of all values that have no row of their own in this bucket
    committed numeric NOT NULL,                       -- numeric, so that no sum stops the roll-up
    charges   bigint NOT NULL,                        -- entries that changed the committed amount
    PRIMARY KEY (budget_id, dimension, bucket, value, other),
    CHECK (NOT other OR value = '')
) WITH (fillfactor = 80);

-- One row: how far the journal is in usage_rollups.
CREATE TABLE earmark.usage_watermark (
    only_row       boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    entry_id       bigint NOT NULL DEFAULT 0, -- usage_rollups has every entry up to this one, and no later one
    final_entry_id bigint NOT NULL DEFAULT 0, -- no transaction can add an entry up to this one any more
    -- Once every transaction before next_xid has ended, next_entry_id is final.
    next_entry_id  bigint NOT NULL DEFAULT 0,
    next_xid       xid8 NOT NULL DEFAULT '0',
    CHECK (entry_id <= final_entry_id AND final_entry_id <= next_entry_id)
);

INSERT INTO earmark.usage_watermark DEFAULT VALUES;

-- +goose Down
DROP TABLE earmark.usage_rollups, earmark.usage_watermark CASCADE;
DELETE FROM earmark.function_sets; -- the next `earmark migrate up` makes the functions anew
