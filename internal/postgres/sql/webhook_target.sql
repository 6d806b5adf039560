SELECT jsonb_build_object('url', w.url, 'secrets', earmark.webhook_secrets(w))
FROM earmark.webhooks w
WHERE w.tenant = $1 AND w.id = $2
