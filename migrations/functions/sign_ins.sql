-- Browsers that are signed in. Whether their key works is decided when it is used, as for every other call.

-- How many browsers at most are signed in with one key.
CREATE OR REPLACE FUNCTION earmark.max_sign_ins() RETURNS integer LANGUAGE sql IMMUTABLE AS $$ SELECT 100 $$;

-- Signs a browser in with the key for p_lasts_ms, and removes what has ended: some sign-ins of any key whose time is over,
-- and the oldest of this key beyond earmark.max_sign_ins. False if there is no such key.
CREATE OR REPLACE FUNCTION earmark.create_sign_in(p_hash bytea, p_key_id text, p_lasts_ms bigint) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET lock_timeout = '1s' AS $$
BEGIN
    PERFORM 1 FROM earmark.keys WHERE id = p_key_id FOR NO KEY UPDATE; -- sign-ins with one key take turns
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    DELETE FROM earmark.sign_ins WHERE hash IN (
        SELECT hash FROM earmark.sign_ins WHERE key_id = p_key_id ORDER BY expires_at DESC OFFSET earmark.max_sign_ins() - 1);
    DELETE FROM earmark.sign_ins WHERE hash IN (
        SELECT hash FROM earmark.sign_ins WHERE expires_at <= clock_timestamp() ORDER BY expires_at LIMIT 100 FOR UPDATE SKIP LOCKED);
    INSERT INTO earmark.sign_ins (hash, key_id, expires_at) VALUES (p_hash, p_key_id, clock_timestamp() + p_lasts_ms * interval '1 millisecond');
    RETURN true;
END $$;

-- Signs a browser out. Without such a sign-in it does nothing.
CREATE OR REPLACE FUNCTION earmark.end_sign_in(p_hash bytea) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET lock_timeout = '1s' AS $$
BEGIN
    DELETE FROM earmark.sign_ins WHERE hash = p_hash;
END $$;
