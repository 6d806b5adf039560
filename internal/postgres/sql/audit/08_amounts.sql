-- R8: amounts and usage are at least 0, and usage is in exactly the reserved units
SELECT count(*), count(*) FILTER (WHERE bad), coalesce((array_agg(what) FILTER (WHERE bad))[1:10], '{}')
FROM (
    SELECT EXISTS (SELECT 1 FROM jsonb_each_text(r.amounts) AS a WHERE a.value::numeric NOT BETWEEN 0 AND 9223372036854775807)
        OR r.usage IS NOT NULL AND (earmark.units(r.usage) <> earmark.units(r.amounts)
           OR EXISTS (SELECT 1 FROM jsonb_each_text(r.usage) AS u WHERE u.value::numeric NOT BETWEEN 0 AND 9223372036854775807)) AS bad,
           format('%s: %s reserved, %s used', r.id, r.amounts, r.usage) AS what
    FROM earmark.reservations r
) AS checks
