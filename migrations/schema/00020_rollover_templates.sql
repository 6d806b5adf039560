-- +goose Up
-- Rollover, 1 of 3: a template says what its children roll over. Each step locks one table that admissions use.
ALTER TABLE earmark.template_revisions ADD COLUMN rollover jsonb;

-- +goose Down
ALTER TABLE earmark.template_revisions DROP COLUMN rollover;
DELETE FROM earmark.function_sets; -- see 00018
