-- usage: for each window, the usage of its time and the entries since sum to what it has committed
SELECT count(*), count(*) FILTER (WHERE bad), coalesce((array_agg(what) FILTER (WHERE bad))[1:10], '{}')
FROM (
    SELECT w.committed <> u.committed + t.committed AS bad,
           format('%s at %s: %s committed; its usage sums to %s, and to %s since', w.budget_id, w.window_start, w.committed, u.committed, t.committed) AS what
    FROM earmark.windows w
         CROSS JOIN LATERAL (SELECT coalesce(sum(committed), 0) AS committed FROM earmark.usage_rollups r
                             WHERE r.budget_id = w.budget_id AND r.dimension = '' AND r.bucket >= w.window_start AND r.bucket < coalesce(w.window_end, 'infinity')) AS u
         LEFT JOIN (SELECT budget_id, window_start, sum(committed_delta) AS since FROM earmark.entries
                    WHERE id > (SELECT entry_id FROM earmark.usage_watermark) AND window_start IS NOT NULL GROUP BY 1, 2) AS e USING (budget_id, window_start)
         CROSS JOIN LATERAL (SELECT coalesce(e.since, 0) AS committed) AS t
) AS checks
