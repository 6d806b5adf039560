SELECT earmark.key_json(k), k.hash, t.disabled_at IS NOT NULL
FROM earmark.sign_ins s JOIN earmark.keys k ON k.id = s.key_id JOIN earmark.tenants t ON t.id = k.tenant
WHERE s.hash = $1 -- mutation: sign-in
    AND s.expires_at > clock_timestamp() -- mutation: sign-in-over
