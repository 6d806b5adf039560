-- The planner overrates how many units a reservation has, and would compile the
-- query, which takes longer than the query does.
SET LOCAL jit = off;
SET LOCAL statement_timeout = '2s'
