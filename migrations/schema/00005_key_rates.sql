-- +goose Up
-- A key's own rate, such as 50/s or 3000/m; earmark.ParseRate reads it.
ALTER TABLE earmark.keys ADD COLUMN rate text NOT NULL DEFAULT '' CHECK (rate ~ '^([1-9][0-9]{0,6}/[sm])?$');

-- The function of this name has one argument more now.
DROP FUNCTION IF EXISTS earmark.create_key(text, text, text, text, text[], bytea, timestamptz, text, text);

-- +goose Down
-- key_json takes rows with this column; without a record of their set, the next `earmark migrate up` makes the functions anew.
ALTER TABLE earmark.keys DROP COLUMN rate;
DELETE FROM earmark.function_sets;
