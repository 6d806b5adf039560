-- R4: entries are protected, and each follows from the one before it
SELECT count(*), count(*) FILTER (WHERE bad), coalesce((array_agg(what) FILTER (WHERE bad))[1:10], '{}')
FROM (
    -- A checkpoint follows from everything up to its place. Entries that are left before it
    -- have lost their neighbours; the checkpoint covers them.
    SELECT CASE WHEN id < checkpoint_id THEN false
                WHEN id = checkpoint_id THEN reserved_after <> reserved_so_far OR committed_after <> committed_so_far
                ELSE reserved_after::numeric <> reserved_delta::numeric + reserved_before OR committed_after::numeric <> committed_delta::numeric + committed_before
           END AS bad,
           format('entry %s does not follow from the one before it in %s at %s', id, budget_id, window_start) AS what
    FROM (
        SELECT *, coalesce(lag(reserved_after) OVER chain, 0) AS reserved_before, coalesce(lag(committed_after) OVER chain, 0) AS committed_before,
               sum(reserved_delta) OVER chain AS reserved_so_far, sum(committed_delta) OVER chain AS committed_so_far,
               max(id) FILTER (WHERE kind = 'checkpoint') OVER (PARTITION BY budget_id, window_start) AS checkpoint_id
        FROM earmark.entries WHERE window_start IS NOT NULL
        WINDOW chain AS (PARTITION BY budget_id, window_start ORDER BY id)
    ) AS chained
    UNION ALL
    SELECT NOT EXISTS (SELECT 1 FROM pg_trigger WHERE tgrelid = 'earmark.entries'::regclass AND tgname = name AND tgenabled = 'A'),
           format('the trigger %s, which keeps entries append-only, is missing or disabled', name)
    FROM unnest(ARRAY ['entries_append_only', 'entries_pruned']) AS name
) AS checks
