-- A transaction of several round trips waits for a lock no longer than a transition does,
-- and ends if its client is cut off while it holds one (R6).
SET LOCAL lock_timeout = '1s';
SET LOCAL idle_in_transaction_session_timeout = '5s'
