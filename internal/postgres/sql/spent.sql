-- What a tenant's reservations and direct charges of the days from $2 on and before $3 used in the unit $4, corrections
-- included, by day in the time zone $5 and by model: the first of the metadata keys $6 that a reservation has. A reservation
-- belongs to the day on which it was made.
SELECT to_char(r.created_at AT TIME ZONE $5, 'YYYY-MM-DD') AS day,
       coalesce((SELECT r.metadata ->> k.key FROM unnest($6::text[]) WITH ORDINALITY AS k (key, place) WHERE r.metadata ? k.key ORDER BY k.place LIMIT 1), '') AS model,
       sum((r.usage ->> $4)::numeric + coalesce((r.correction ->> $4)::numeric, 0))::bigint AS amount
FROM earmark.reservations r
WHERE r.tenant = $1 AND r.created_at >= $2::date::timestamp AT TIME ZONE $5 AND r.created_at < $3::date::timestamp AT TIME ZONE $5
  AND r.state = 'committed' AND r.usage ? $4
GROUP BY 1, 2
HAVING sum((r.usage ->> $4)::numeric + coalesce((r.correction ->> $4)::numeric, 0)) <> 0
