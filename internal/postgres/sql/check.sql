SELECT id, tenant, workflow_id, state, scopes, amounts, created_at, coalesce(expires_at, created_at), on_expiry, request_hash FROM earmark.reservations
WHERE tenant = $1 AND id = $2
