SELECT earmark.tenant_json(t) FROM earmark.tenants t ORDER BY t.id
