-- A new workflow for an open reservation.

-- Writes a journal entry: an actor starts a new workflow for an open reservation.
CREATE OR REPLACE FUNCTION earmark.adopt(p_tenant text, p_id text, p_actor text, p_reason text) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET lock_timeout = '1s' AS $$
DECLARE
    r earmark.reservations := earmark.lock_reservation(p_tenant, p_id);
BEGIN
    IF r.id IS NULL THEN
        RETURN jsonb_build_object('outcome', 'unknown');
    ELSIF r.state NOT IN ('held', 'review') THEN
        RETURN earmark.result('conflict', r);
    END IF;
    PERFORM earmark.note('adopt', r.tenant, r.id, NULL, p_actor, p_reason);
    RETURN earmark.result('applied', r);
END $$;
