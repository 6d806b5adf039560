-- The role for `earmark serve` and `earmark worker`, and what it may do: read everything, and call the functions.
-- Those of the ledger's functions that change something run with the rights of the schema's owner (SECURITY DEFINER);
-- this role has no right of its own to change a row. It has no password and cannot log in.
DO $$
BEGIN
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'earmark_app') THEN
        CREATE ROLE earmark_app NOLOGIN;
    END IF;
EXCEPTION
    WHEN insufficient_privilege THEN NULL; -- somebody else has to make it; without it the owner's account serves
    WHEN duplicate_object OR unique_violation THEN NULL; -- made at the same moment for another database
END $$;

DO $$
BEGIN
    IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'earmark_app') THEN
        GRANT USAGE ON SCHEMA earmark TO earmark_app;
        GRANT SELECT ON ALL TABLES IN SCHEMA earmark TO earmark_app; -- mutation: app-role
        GRANT SELECT ON public.earmark_migrations TO earmark_app;
    END IF;
END $$;
