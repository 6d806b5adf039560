-- Runs once, when the data volume is new. Temporal gets a role of its own, so that it cannot touch the ledger;
-- the role makes its two databases itself. The port is published nowhere: the password guards nothing but mistakes.
CREATE ROLE temporal LOGIN CREATEDB PASSWORD 'temporal';
