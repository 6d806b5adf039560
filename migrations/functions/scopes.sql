-- Scopes and units: which budgets can apply to a request.

-- 'acme/ml/u1' returns {acme/ml/u1, acme/ml, acme}. The paths of several scopes follow each
-- other, each path once.
CREATE OR REPLACE FUNCTION earmark.scope_paths(p_scopes text[]) RETURNS text[] LANGUAGE plpgsql IMMUTABLE AS $$
DECLARE
    v_path  text;
    v_paths text[] := '{}';
BEGIN
    FOREACH v_path IN ARRAY p_scopes LOOP
        WHILE v_path <> '' AND v_path <> ALL (v_paths) LOOP -- a path that is in the list has all paths above it in the list too
            v_paths := v_paths || v_path;
            v_path := left(v_path, -position('/' IN reverse(v_path))); -- empty above the first
        END LOOP;
    END LOOP;
    RETURN v_paths;
END $$;

-- Whether each of p_scopes is one of p_within or below one; always, where p_within is empty; null where
-- either is null. So a list shows what a key that is bound to scopes may see.
CREATE OR REPLACE FUNCTION earmark.scopes_within(p_scopes text[], p_within text[]) RETURNS boolean LANGUAGE plpgsql IMMUTABLE STRICT AS $$
DECLARE
    v_scope  text;
    v_within text;
    v_found  boolean;
BEGIN
    IF p_within = '{}' THEN
        RETURN true;
    END IF;
    FOREACH v_scope IN ARRAY p_scopes LOOP
        v_found := false;
        FOREACH v_within IN ARRAY p_within LOOP
            v_found := v_found OR v_scope = v_within OR starts_with(v_scope, v_within || '/'); -- mutation: scopes-within
        END LOOP;
        IF NOT v_found THEN
            RETURN false;
        END IF;
    END LOOP;
    RETURN true;
END $$;

-- The units of amounts or of usage, sorted.
CREATE OR REPLACE FUNCTION earmark.units(p_amounts jsonb) RETURNS text[] LANGUAGE plpgsql IMMUTABLE AS $$
BEGIN
    RETURN (SELECT array_agg(unit ORDER BY unit) FROM jsonb_object_keys(p_amounts) AS unit);
END $$;
