-- For each tenant, how many reservations were created more than $1 milliseconds ago.
SELECT t.id, (SELECT count(*) FROM earmark.reservations r
              WHERE r.tenant = t.id AND r.created_at < statement_timestamp() - $1 * interval '1 millisecond')
FROM earmark.tenants AS t
ORDER BY 1
