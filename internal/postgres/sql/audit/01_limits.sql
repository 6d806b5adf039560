-- R1: no admission to a hard budget passed its limit
SELECT count(*), count(*) FILTER (WHERE bad), coalesce((array_agg(what) FILTER (WHERE bad))[1:10], '{}')
FROM (
    SELECT e.ceiling IS NOT NULL AND e.reserved_after::numeric + e.committed_after > e.ceiling AS bad,
           format('entry %s: %s reserved and %s committed over %s', e.id, e.reserved_after, e.committed_after, e.ceiling) AS what
    FROM earmark.entries e WHERE e.kind = 'reserve'
) AS checks
