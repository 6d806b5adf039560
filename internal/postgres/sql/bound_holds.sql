-- The planner overestimates the number of units of a reservation and would compile the
-- query, which takes longer than the query itself.
SET LOCAL jit = off;
SET LOCAL statement_timeout = '2s'
