-- functions: the functions in the database are those that `earmark migrate up` applied last
SELECT count(*), count(*) FILTER (WHERE broken),
       coalesce(array_agg('they were changed after ' || applied_at) FILTER (WHERE broken), '{}')
FROM (SELECT applied_at, fingerprint <> earmark.functions_fingerprint() AS broken
      FROM earmark.function_sets ORDER BY applied_at DESC LIMIT 1) AS newest
