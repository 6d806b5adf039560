-- +goose Up
-- What a provider sent, for charges that Earmark computed from it; see earmark.ResponseRecord. Null for all others.
ALTER TABLE earmark.reservations ADD COLUMN response jsonb;

-- +goose Down
-- Functions take rows of this table; without a record of their set, the next `earmark migrate up` makes them anew.
ALTER TABLE earmark.reservations DROP COLUMN response;
DELETE FROM earmark.function_sets;
