-- +goose Up
-- Corrections of final charges. Their entries in the journal have the kind 'correction'.
ALTER TABLE earmark.reservations ADD COLUMN correction jsonb; -- the sum of its corrections in each corrected unit; null if none

-- The id of a correction is derived from its reservation and idempotency key, so that a repeated call applies once (R5).
CREATE TABLE earmark.corrections (
    reservation_id text COLLATE "C" NOT NULL REFERENCES earmark.reservations,
    id             text COLLATE "C" NOT NULL,
    request_hash   text COLLATE "C" NOT NULL,
    amounts        jsonb NOT NULL, -- signed
    created_at     timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (reservation_id, id)
);

-- +goose Down
-- Functions take rows of these tables; without a record of their set, the next `earmark migrate up` makes them anew.
DROP TABLE earmark.corrections CASCADE;
ALTER TABLE earmark.reservations DROP COLUMN correction;
DELETE FROM earmark.function_sets;
