-- +goose Up
-- The event grant.expiring, once for each grant.
ALTER TABLE earmark.grants ADD COLUMN expiring_noted boolean NOT NULL DEFAULT false; -- whether an event says that it will expire

CREATE INDEX grants_expiring_idx ON earmark.grants (expires_at) WHERE voided_at IS NULL AND NOT expiring_noted;

-- +goose Down
DROP INDEX earmark.grants_expiring_idx;
ALTER TABLE earmark.grants DROP COLUMN expiring_noted;
DELETE FROM earmark.function_sets; -- the next `earmark migrate up` makes the functions anew
