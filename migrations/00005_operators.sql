-- +goose Up
-- What operators need: what is stuck is found without a look at every reservation,
-- and what they do says who and why.

CREATE INDEX reservations_review_idx ON earmark.reservations (id) WHERE state = 'review';
CREATE INDEX reservations_orphan_idx ON earmark.reservations (id) WHERE orphan;

ALTER TABLE earmark.entries DROP CONSTRAINT entries_kind_check,
    ADD CONSTRAINT entries_kind_check CHECK (kind IN ('reserve', 'commit', 'release', 'expire', 'charge', 'extend', 'review', 'reject', 'refuse', 'budget', 'adopt')) NOT VALID;

-- Replaced by one that takes the reason too, which the release before leaves out.
DROP FUNCTION earmark.extend(text, text, bigint, text);

-- +goose StatementBegin
-- Lets a held reservation's lease run for p_ttl_ms from now, if that is longer
-- than it runs already, and to seven days after its creation at the most.
CREATE FUNCTION earmark.extend(p_tenant text, p_id text, p_ttl_ms bigint, p_actor text, p_reason text DEFAULT '') RETURNS jsonb
LANGUAGE plpgsql SET lock_timeout = '1s' AS $$
DECLARE
    c_longest CONSTANT interval := '168 hours'; -- '7 days' would be an hour off where the session's time zone changes its clocks
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
-- +goose StatementEnd

-- +goose StatementBegin
-- Says in the journal that somebody starts a new workflow for an open reservation.
CREATE FUNCTION earmark.adopt(p_tenant text, p_id text, p_actor text, p_reason text) RETURNS jsonb
LANGUAGE plpgsql SET lock_timeout = '1s' AS $$
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
-- +goose StatementEnd

-- +goose Down
DROP FUNCTION earmark.adopt, earmark.extend(text, text, bigint, text, text);

-- +goose StatementBegin
CREATE FUNCTION earmark.extend(p_tenant text, p_id text, p_ttl_ms bigint, p_actor text) RETURNS jsonb
LANGUAGE plpgsql SET lock_timeout = '1s' AS $$
DECLARE
    c_longest CONSTANT interval := '168 hours';
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
    PERFORM earmark.note('extend', r.tenant, r.id, NULL, p_actor, 'expires at ' || to_char(v_expires AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"'));
    RETURN earmark.result('applied', r);
END $$;
-- +goose StatementEnd

ALTER TABLE earmark.entries DROP CONSTRAINT entries_kind_check,
    ADD CONSTRAINT entries_kind_check CHECK (kind IN ('reserve', 'commit', 'release', 'expire', 'charge', 'extend', 'review', 'reject', 'refuse', 'budget')) NOT VALID;
DROP INDEX earmark.reservations_orphan_idx, earmark.reservations_review_idx;
