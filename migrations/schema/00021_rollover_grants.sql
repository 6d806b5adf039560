-- +goose Up
-- Rollover, 2 of 3: a grant of what a window left. It may be of nothing as long as holds of that window are open.
ALTER TABLE earmark.grants
    ADD COLUMN rolled_from timestamptz, -- the start of that window; null: somebody made the grant
    ADD COLUMN rolled_left bigint,      -- what the window has left, as far as settlements have changed it since; negative if it is overdrawn
    DROP CONSTRAINT grants_amount_check,
    ADD CONSTRAINT grants_amount_check CHECK (amount > 0 OR rolled_from IS NOT NULL) NOT VALID,
    ADD CONSTRAINT grants_rolled_check CHECK ((rolled_from IS NULL) = (rolled_left IS NULL)) NOT VALID;

-- +goose Down
DELETE FROM earmark.grants WHERE amount = 0;
ALTER TABLE earmark.grants
    DROP CONSTRAINT grants_amount_check,
    DROP CONSTRAINT grants_rolled_check,
    DROP COLUMN rolled_from,
    DROP COLUMN rolled_left,
    ADD CONSTRAINT grants_amount_check CHECK (amount > 0);
DELETE FROM earmark.function_sets; -- see 00018
