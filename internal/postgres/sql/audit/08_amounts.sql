-- R8: amounts, usage and corrected usage are at least 0, and usage is in exactly the reserved units
SELECT count(*), count(*) FILTER (WHERE bad), coalesce((array_agg(what) FILTER (WHERE bad))[1:10], '{}')
FROM (
    SELECT EXISTS (SELECT 1 FROM jsonb_each_text(r.amounts) AS a WHERE a.value::numeric NOT BETWEEN 0 AND 9223372036854775807)
        OR r.usage IS NOT NULL AND (earmark.units(r.usage) <> earmark.units(r.amounts)
           OR EXISTS (SELECT 1 FROM jsonb_each_text(r.usage) AS u WHERE u.value::numeric NOT BETWEEN 0 AND 9223372036854775807)) AS bad,
           format('%s: %s reserved, %s used', r.id, r.amounts, r.usage) AS what
    FROM earmark.reservations r
    UNION ALL
    SELECT NOT coalesce(r.usage ? k.unit AND (r.usage ->> k.unit)::numeric + sums.amount BETWEEN 0 AND 9223372036854775807, false)
           OR (r.correction ->> k.unit)::numeric IS DISTINCT FROM sums.amount,
           format('%s: %s %s used, corrected by %s, and its corrections sum to %s', r.id, r.usage ->> k.unit, k.unit, r.correction ->> k.unit, sums.amount)
    FROM earmark.reservations r
         CROSS JOIN LATERAL (SELECT jsonb_object_keys(r.correction) AS unit UNION SELECT jsonb_object_keys(c.amounts) FROM earmark.corrections c WHERE c.reservation_id = r.id) AS k
         CROSS JOIN LATERAL (SELECT sum((c.amounts ->> k.unit)::numeric) AS amount FROM earmark.corrections c WHERE c.reservation_id = r.id) AS sums
) AS checks
