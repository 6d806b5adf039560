-- Scopes and units: which budgets can apply to a request.

-- 'acme/ml/u1' gives {acme/ml/u1, acme/ml, acme}. Several scopes' paths follow each
-- other, each path once.
CREATE OR REPLACE FUNCTION earmark.scope_paths(p_scopes text[]) RETURNS text[] LANGUAGE plpgsql IMMUTABLE AS $$
DECLARE
    v_path  text;
    v_paths text[] := '{}';
    v_slash integer;
BEGIN
    FOREACH v_path IN ARRAY p_scopes LOOP
        WHILE v_path <> ALL (v_paths) LOOP -- what is above a path that is there is there as well
            v_paths := v_paths || v_path;
            v_slash := position('/' IN reverse(v_path));
            EXIT WHEN v_slash = 0;
            v_path := left(v_path, -v_slash);
        END LOOP;
    END LOOP;
    RETURN v_paths;
END $$;

-- Whether p_budgets, scopes of budgets, cover every one of p_scopes.
CREATE OR REPLACE FUNCTION earmark.covers(p_budgets text[], p_scopes text[]) RETURNS boolean LANGUAGE plpgsql IMMUTABLE AS $$
DECLARE
    v_scope text;
BEGIN
    FOREACH v_scope IN ARRAY p_scopes LOOP
        IF NOT earmark.scope_paths(ARRAY [v_scope]) && p_budgets THEN
            RETURN false;
        END IF;
    END LOOP;
    RETURN true;
END $$;

CREATE OR REPLACE FUNCTION earmark.units(p_amounts jsonb) RETURNS text[] LANGUAGE plpgsql IMMUTABLE AS $$
BEGIN
    RETURN (SELECT array_agg(unit ORDER BY unit) FROM jsonb_object_keys(p_amounts) AS unit);
END $$;
