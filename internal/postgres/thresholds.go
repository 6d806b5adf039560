package postgres

import (
	"context"
	"encoding/json"
	"slices"

	"github.com/jackc/pgx/v5"

	"github.com/earmark-dev/earmark"
)

const (
	thresholdsSQL    = "SELECT coalesce(thresholds, '[]') FROM earmark.budgets WHERE tenant = @tenant AND id = @id"
	setThresholdsSQL = "SELECT earmark.set_thresholds(p_tenant => @tenant, p_id => @id, p_thresholds => @thresholds, p_actor => @actor, p_reason => @reason)"
)

// setThresholds replaces the thresholds of a budget whose row the transaction has locked. It does nothing if the
// budget has them already.
func setThresholds(ctx context.Context, tx pgx.Tx, tenant, id string, thresholds []earmark.Threshold, by earmark.Actor) error {
	var before []earmark.Threshold
	if err := tx.QueryRow(ctx, thresholdsSQL, namedArgs{"tenant": tenant, "id": id}).Scan(&before); err != nil {
		return err
	}
	if slices.Equal(before, thresholds) {
		return nil
	}
	encoded, err := json.Marshal(append([]earmark.Threshold{}, thresholds...))
	if err != nil {
		return err
	}
	_, err = tx.Exec(ctx, setThresholdsSQL, namedArgs{"tenant": tenant, "id": id, "thresholds": encoded, "actor": by.String(), "reason": "thresholds " + string(encoded)})
	return err
}
