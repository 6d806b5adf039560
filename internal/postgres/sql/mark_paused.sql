-- $1 reservations whose workflow is paused. The settled ones become due for a check, in
-- which the reconciler unpauses the workflow.
UPDATE earmark.reservations SET refresh_due = true WHERE id = ANY ($1) AND state NOT IN ('held', 'review') AND NOT refresh_due
