-- Scopes and units: which budgets can apply to a request.

-- 'acme/ml/u1' returns {acme/ml/u1, acme/ml, acme}. The paths of several scopes follow each
-- other, each path once.
CREATE OR REPLACE FUNCTION earmark.scope_paths(p_scopes text[]) RETURNS text[] LANGUAGE plpgsql IMMUTABLE AS $$
DECLARE
    v_path  text;
    v_paths text[] := '{}';
    v_slash integer;
BEGIN
    FOREACH v_path IN ARRAY p_scopes LOOP
        WHILE v_path <> ALL (v_paths) LOOP -- a path that is in the list has all paths above it in the list too
            v_paths := v_paths || v_path;
            v_slash := position('/' IN reverse(v_path));
            EXIT WHEN v_slash = 0;
            v_path := left(v_path, -v_slash);
        END LOOP;
    END LOOP;
    RETURN v_paths;
END $$;

-- The units of amounts or of usage, sorted.
CREATE OR REPLACE FUNCTION earmark.units(p_amounts jsonb) RETURNS text[] LANGUAGE plpgsql IMMUTABLE AS $$
BEGIN
    RETURN (SELECT array_agg(unit ORDER BY unit) FROM jsonb_object_keys(p_amounts) AS unit);
END $$;
