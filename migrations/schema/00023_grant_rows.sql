-- +goose Up
-- Postgres parses each of these conditions for every hold on a grant; one function takes their place, see integrity.sql.
ALTER TABLE earmark.grants
    DROP CONSTRAINT grants_amount_check,
    DROP CONSTRAINT grants_reserved_check,
    DROP CONSTRAINT grants_committed_check,
    DROP CONSTRAINT grants_voided_check,
    DROP CONSTRAINT grants_reason_check,
    DROP CONSTRAINT grants_rolled_check,
    DROP CONSTRAINT grants_check,
    DROP CONSTRAINT grants_check1;

-- An admission reads the grants that have not ended, however many have. A list of all sorts those of one budget.
DROP INDEX earmark.grants_budget_idx;
CREATE INDEX grants_in_force_idx ON earmark.grants (budget_id, coalesce(expires_at, 'infinity'));

-- +goose Down
-- Before 00018 drops the attributes that these follow.
ALTER TYPE earmark.affected_budget DROP ATTRIBUTE IF EXISTS grant_ids, DROP ATTRIBUTE IF EXISTS grant_remaining;
DROP INDEX earmark.grants_in_force_idx;
CREATE INDEX grants_budget_idx ON earmark.grants (budget_id, created_at DESC, id DESC);
ALTER TABLE earmark.grants
    DROP CONSTRAINT IF EXISTS grants_row_check,
    ADD CONSTRAINT grants_amount_check CHECK (amount > 0 OR rolled_from IS NOT NULL) NOT VALID,
    ADD CONSTRAINT grants_reserved_check CHECK (reserved >= 0) NOT VALID,
    ADD CONSTRAINT grants_committed_check CHECK (committed >= 0) NOT VALID,
    ADD CONSTRAINT grants_voided_check CHECK (voided >= 0) NOT VALID,
    ADD CONSTRAINT grants_reason_check CHECK (reason <> '') NOT VALID,
    ADD CONSTRAINT grants_rolled_check CHECK ((rolled_from IS NULL) = (rolled_left IS NULL)) NOT VALID,
    ADD CONSTRAINT grants_check CHECK (expires_at > effective_at) NOT VALID,
    ADD CONSTRAINT grants_check1 CHECK (amount - reserved - committed - voided >= 0) NOT VALID;
DELETE FROM earmark.function_sets; -- see 00018
