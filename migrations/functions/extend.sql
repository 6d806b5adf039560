-- Extension of a lease.

-- Extends the lease of a held reservation to p_ttl_ms from now, if that is later than its
-- expiry, and to at most seven days after its creation.
CREATE OR REPLACE FUNCTION earmark.extend(p_tenant text, p_id text, p_ttl_ms bigint, p_actor text, p_reason text DEFAULT '') RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET lock_timeout = '1s' AS $$
DECLARE
    c_longest CONSTANT interval := '168 hours'; -- not '7 days', which is an hour off if the session's time zone changes its clocks
    r         earmark.reservations := earmark.lock_reservation(p_tenant, p_id);
    v_expires timestamptz;
BEGIN
    IF r.id IS NULL THEN
        RETURN jsonb_build_object('outcome', 'unknown');
    ELSIF r.state IN ('expired', 'review') THEN
        RETURN earmark.result('expired', r);
    ELSIF r.state <> 'held' THEN
        RETURN earmark.result('conflict', r);
    END IF;
    v_expires := greatest(r.expires_at, least(clock_timestamp() + p_ttl_ms * interval '1 millisecond', r.created_at + c_longest));
    IF v_expires = r.expires_at THEN
        RETURN earmark.result('same', r);
    END IF;
    UPDATE earmark.reservations SET expires_at = v_expires WHERE id = r.id RETURNING * INTO r;
    PERFORM earmark.note('extend', r.tenant, r.id, NULL, p_actor,
        concat_ws(': ', 'expires at ' || to_char(v_expires AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"'), nullif(p_reason, '')));
    RETURN earmark.result('applied', r);
END $$;
