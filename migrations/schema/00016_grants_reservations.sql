-- +goose Up
-- Grants, 2 of 4: whether a reservation's budgets have grants, which it may be held against. Its settlement then locks them.
ALTER TABLE earmark.reservations ADD COLUMN granted boolean NOT NULL DEFAULT false;

-- +goose Down
ALTER TABLE earmark.reservations DROP COLUMN granted;
DELETE FROM earmark.function_sets; -- see 00018
