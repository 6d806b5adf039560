-- For each tenant, how many reservations were created more than $1 milliseconds ago.
SELECT b.tenant, (SELECT count(*) FROM earmark.reservations r
                  WHERE r.tenant = b.tenant AND r.created_at < statement_timestamp() - $1 * interval '1 millisecond')
FROM (SELECT DISTINCT tenant FROM earmark.budgets) AS b
ORDER BY 1
