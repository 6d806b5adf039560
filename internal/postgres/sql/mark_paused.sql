-- $1 ids whose workflow is paused; of those the settled ones are due, for the reconciler unpauses them
UPDATE earmark.reservations SET refresh_due = true WHERE id = ANY ($1) AND state NOT IN ('held', 'review') AND NOT refresh_due
