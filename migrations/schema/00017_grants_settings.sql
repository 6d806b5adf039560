-- +goose Up
-- Grants, 3 of 4: a template says where its children's allowance is used, and the audit log names what is done to grants.
ALTER TABLE earmark.template_revisions ADD COLUMN allowance text NOT NULL DEFAULT 'first';

ALTER TABLE earmark.audit_log DROP CONSTRAINT audit_log_action_check;
ALTER TABLE earmark.audit_log
    ADD CONSTRAINT audit_log_action_check CHECK (action IN ('budget.create', 'budget.change', 'budget.archive', 'key.create', 'key.rotate', 'key.revoke',
                                                            'tenant.create', 'tenant.disable', 'tenant.enable', 'price.add',
                                                            'override.create', 'override.end', 'grant.create', 'grant.void',
                                                            'webhook.create', 'webhook.change', 'webhook.rotate', 'webhook.replay', 'webhook.delete'));

-- +goose Down
ALTER TABLE earmark.audit_log DROP CONSTRAINT audit_log_action_check;
ALTER TABLE earmark.audit_log
    ADD CONSTRAINT audit_log_action_check CHECK (action IN ('budget.create', 'budget.change', 'budget.archive', 'key.create', 'key.rotate', 'key.revoke',
                                                            'tenant.create', 'tenant.disable', 'tenant.enable', 'price.add',
                                                            'override.create', 'override.end',
                                                            'webhook.create', 'webhook.change', 'webhook.rotate', 'webhook.replay', 'webhook.delete'));
ALTER TABLE earmark.template_revisions DROP COLUMN allowance;
DELETE FROM earmark.function_sets; -- see 00018
