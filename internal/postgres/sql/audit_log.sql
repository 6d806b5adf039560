-- $2 subject, $3 action, $4 actor, or one of the words of which an actor is made, $5 the last record of the page before, $6 rows.
SELECT id, tenant, actor, action, subject, reason, before, after, created_at
FROM earmark.audit_log
WHERE tenant = $1
  AND ($2 = '' OR subject = $2)
  AND ($3 = '' OR action = $3)
  AND ($4 = '' OR actor = $4 OR $4 = ANY (string_to_array(actor, ' ')))
  AND ($5 = 0 OR id < $5)
ORDER BY id DESC
LIMIT $6
