-- +goose Up
-- Templates: a budget on app/users/* gives each child of app/users a budget of its own.
ALTER TABLE earmark.budgets
    ADD COLUMN template_id text COLLATE "C", -- of a child: the template that made it, or that it follows
    -- Of a template: its newest revision. Of a child that follows its template: the revision whose settings it has. Null for all others.
    ADD COLUMN revision bigint;

-- The settings of each template, as they were created and as each change left them.
CREATE TABLE earmark.template_revisions (
    template_id  text COLLATE "C" NOT NULL REFERENCES earmark.budgets,
    revision     bigint NOT NULL,
    limit_amount bigint NOT NULL,
    enforcement  text NOT NULL,
    soft_ceiling bigint,
    overage      text NOT NULL,
    thresholds   jsonb,
    next_window  boolean NOT NULL, -- a child takes it over with its next window, not at once
    created_at   timestamptz NOT NULL,
    PRIMARY KEY (template_id, revision)
);

-- So a call finds cheaply that no template is meant for its scopes, however many children there are.
CREATE INDEX budgets_template_idx ON earmark.budgets (tenant, scope) WHERE right(scope, 1) = '*' AND archived_at IS NULL;
CREATE INDEX budgets_child_idx ON earmark.budgets (template_id, created_at DESC, id DESC) WHERE template_id IS NOT NULL;

-- +goose Down
-- Functions take rows of these tables; without a record of their set, the next `earmark migrate up` makes them anew.
DROP TABLE earmark.template_revisions CASCADE;
DROP INDEX earmark.budgets_template_idx, earmark.budgets_child_idx;
ALTER TABLE earmark.budgets DROP COLUMN template_id, DROP COLUMN revision;
DELETE FROM earmark.function_sets;
