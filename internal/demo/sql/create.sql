DROP SCHEMA IF EXISTS earmark_demo CASCADE; -- of a demo that was killed
CREATE SCHEMA earmark_demo;
COMMENT ON SCHEMA earmark_demo IS 'scratch of earmark demo';
CREATE TABLE earmark_demo.accounts (
    id           bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    limit_tokens bigint NOT NULL,
    used         bigint NOT NULL DEFAULT 0,
    reserved     bigint NOT NULL DEFAULT 0
);
