SELECT earmark.key_json(k), k.hash, t.disabled_at IS NOT NULL FROM earmark.keys k JOIN earmark.tenants t ON t.id = k.tenant WHERE k.id = $1
