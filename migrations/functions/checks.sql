-- What the reconciler and the API write down about workflows. No balance changes here.

-- Open reservations, and settled ones whose workflow may not know it, that were last checked at
-- least p_age_ms milliseconds ago: the longest unchecked first, p_max of each kind. It records the
-- check. Two steps, because Postgres takes no row locks inside a UNION. The SELECT around the clock
-- makes its value constant, which an index search needs; and the plan has to know the numbers, or else it sorts all.
CREATE OR REPLACE FUNCTION earmark.claim_checks(p_age_ms bigint, p_max integer)
    RETURNS TABLE (id text, tenant text, workflow_id text, state text, scopes text[], amounts jsonb, created_at timestamptz, expires_at timestamptz, on_expiry text, request_hash text)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET plan_cache_mode = 'force_custom_plan' AS $$
#variable_conflict use_column
BEGIN
    RETURN QUERY WITH open AS (
        SELECT id, checked_at FROM earmark.reservations
        WHERE state IN ('held', 'review') AND checked_at < (SELECT clock_timestamp()) - p_age_ms * interval '1 millisecond'
        ORDER BY checked_at LIMIT p_max FOR NO KEY UPDATE SKIP LOCKED
    ), settled AS (
        SELECT id, checked_at FROM earmark.reservations
        WHERE refresh_due AND checked_at < (SELECT clock_timestamp()) - p_age_ms * interval '1 millisecond'
        ORDER BY checked_at LIMIT p_max FOR NO KEY UPDATE SKIP LOCKED
    ), claimed AS (
        UPDATE earmark.reservations r SET checked_at = clock_timestamp()
        FROM (SELECT * FROM open UNION ALL SELECT * FROM settled) AS due
        WHERE r.id = due.id
        RETURNING r.id, r.tenant, r.workflow_id, r.state, r.scopes, r.amounts, r.created_at, r.expires_at, r.on_expiry, r.request_hash, due.checked_at AS looked_at
    )
    SELECT id, tenant, workflow_id, state, scopes, amounts, created_at, expires_at, on_expiry, request_hash FROM claimed ORDER BY looked_at, id;
END $$;

-- Records the result of a check: p_orphan, no open workflow guards the reservation; p_refreshed, the
-- workflow needs no notification.
CREATE OR REPLACE FUNCTION earmark.mark_checked(p_tenant text, p_id text, p_orphan boolean, p_refreshed boolean) RETURNS void
LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    UPDATE earmark.reservations SET orphan = p_orphan AND state IN ('held', 'review'), refresh_due = refresh_due AND NOT p_refreshed
    WHERE tenant = p_tenant AND id = p_id
      AND (orphan, refresh_due) IS DISTINCT FROM (p_orphan AND state IN ('held', 'review'), refresh_due AND NOT p_refreshed)
$$;

-- Records that an open workflow guards each of the reservations.
CREATE OR REPLACE FUNCTION earmark.mark_guarded(p_ids text[]) RETURNS void
LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    UPDATE earmark.reservations SET orphan = false WHERE id = ANY (p_ids) AND orphan
$$;

-- Makes the settled ones among reservations whose workflow is paused due for a check, in which the
-- reconciler unpauses the workflow.
CREATE OR REPLACE FUNCTION earmark.mark_paused(p_ids text[]) RETURNS void
LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    UPDATE earmark.reservations SET refresh_due = true WHERE id = ANY (p_ids) AND state NOT IN ('held', 'review') AND NOT refresh_due
$$;

-- Makes a settled reservation, whose workflow may not know of the settlement, due for a check.
CREATE OR REPLACE FUNCTION earmark.mark_unnotified(p_tenant text, p_id text) RETURNS void
LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    UPDATE earmark.reservations SET refresh_due = true WHERE tenant = p_tenant AND id = p_id AND state NOT IN ('held', 'review') AND NOT refresh_due
$$;
