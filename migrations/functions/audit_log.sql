-- The audit log: every change of a budget, a key or a tenant, by whom and why.

CREATE OR REPLACE FUNCTION earmark.log_change(p_tenant text, p_actor text, p_action text, p_subject text, p_reason text, p_before jsonb, p_after jsonb) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO earmark.audit_log (tenant, actor, action, subject, reason, before, after)
    VALUES (p_tenant, p_actor, p_action, p_subject, p_reason, p_before, p_after);
END $$;

-- Nothing is ever deleted here: pruning is of the journal alone.
CREATE OR REPLACE FUNCTION earmark.refuse_audit_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'the audit log is append-only: % is refused', TG_OP USING ERRCODE = 'restrict_violation'; -- mutation: audit-append-only
END $$;
