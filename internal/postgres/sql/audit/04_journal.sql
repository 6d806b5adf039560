-- R4: entries are protected, and each follows from the one before it
SELECT count(*), count(*) FILTER (WHERE bad), coalesce((array_agg(what) FILTER (WHERE bad))[1:10], '{}')
FROM (
    SELECT reserved_after::numeric <> reserved_delta::numeric + coalesce(lag(reserved_after) OVER chain, 0)
        OR committed_after::numeric <> committed_delta::numeric + coalesce(lag(committed_after) OVER chain, 0) AS bad,
           format('entry %s does not follow from the one before it in %s at %s', id, budget_id, window_start) AS what
    FROM earmark.entries WHERE window_start IS NOT NULL
    WINDOW chain AS (PARTITION BY budget_id, window_start ORDER BY id)
    UNION ALL
    SELECT NOT EXISTS (SELECT 1 FROM pg_trigger WHERE tgrelid = 'earmark.entries'::regclass AND tgname = 'entries_append_only' AND tgenabled = 'A'),
           'the trigger that keeps entries append-only is missing or disabled'
) AS checks
