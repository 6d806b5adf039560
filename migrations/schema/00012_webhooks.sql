-- +goose Up
-- Webhooks: endpoints that events are delivered to.
CREATE TABLE earmark.webhooks (
    id              text COLLATE "C" PRIMARY KEY,
    tenant          text COLLATE "C" NOT NULL,
    url             text NOT NULL CHECK (url <> ''),
    types           text[] NOT NULL, -- of events that it receives; empty for all, as with budgets and scopes
    budgets         text[] COLLATE "C" NOT NULL,
    scopes          text[] COLLATE "C" NOT NULL,
    secret          text NOT NULL, -- as the receiver has it: a signature needs the key itself
    former_secret   text, -- signs too until former_until
    former_until    timestamptz,
    created_at      timestamptz NOT NULL DEFAULT clock_timestamp(),
    disabled_at     timestamptz,
    disabled_reason text NOT NULL DEFAULT '',
    -- The position in the feed: events up to it are delivered or not wanted.
    tx              xid8 NOT NULL,
    event_id        bigint NOT NULL,
    -- Failures of the next event.
    attempts        integer NOT NULL DEFAULT 0,
    failing_since   timestamptz, -- the first failure since the last success
    last_error      text NOT NULL DEFAULT '',
    retry_at        timestamptz,
    woken_at        timestamptz, -- when its workflow was last asked to deliver; null once there is nothing to deliver
    -- The last replay: up to the position replay_tx and replay_id only events of this time are delivered.
    replay_from     timestamptz,
    replay_to       timestamptz,
    replay_tx       xid8,
    replay_id       bigint
) WITH (fillfactor = 70);

CREATE INDEX webhooks_tenant_idx ON earmark.webhooks (tenant, created_at DESC, id DESC);

-- Attempts to deliver events. They outlive their webhook and are pruned by age, as events are.
CREATE TABLE earmark.deliveries (
    id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    webhook_id  text COLLATE "C" NOT NULL,
    event_id    text COLLATE "C" NOT NULL,
    type        text NOT NULL,
    attempt     integer NOT NULL,
    at          timestamptz NOT NULL,
    duration_ms bigint NOT NULL,
    status      integer NOT NULL, -- 0 without an answer
    error       text NOT NULL,    -- empty for a success
    retry_at    timestamptz       -- of a failure, unless it was the last attempt
);

CREATE INDEX deliveries_webhook_idx ON earmark.deliveries (webhook_id, id DESC);
CREATE INDEX deliveries_age_idx ON earmark.deliveries (at);

ALTER TABLE earmark.audit_log DROP CONSTRAINT audit_log_action_check;
ALTER TABLE earmark.audit_log
    ADD CONSTRAINT audit_log_action_check CHECK (action IN ('budget.create', 'budget.change', 'budget.archive', 'key.create', 'key.rotate', 'key.revoke',
                                                            'tenant.create', 'tenant.disable', 'tenant.enable', 'price.add',
                                                            'override.create', 'override.end',
                                                            'webhook.create', 'webhook.change', 'webhook.rotate', 'webhook.replay', 'webhook.delete'));

-- +goose Down
-- Functions take rows of these tables; without a record of their set, the next `earmark migrate up` makes them anew.
DELETE FROM earmark.events WHERE type = 'webhook.disabled';
ALTER TABLE earmark.audit_log DROP CONSTRAINT audit_log_action_check;
ALTER TABLE earmark.audit_log
    ADD CONSTRAINT audit_log_action_check CHECK (action IN ('budget.create', 'budget.change', 'budget.archive', 'key.create', 'key.rotate', 'key.revoke',
                                                            'tenant.create', 'tenant.disable', 'tenant.enable', 'price.add',
                                                            'override.create', 'override.end'));
DROP TABLE earmark.deliveries, earmark.webhooks CASCADE;
DELETE FROM earmark.function_sets;
