package main

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/earmark-dev/earmark"
)

// rolloverFlags are those that say what a budget rolls over.
type rolloverFlags struct {
	max     ceilingFlag
	total   amountFlag
	windows int64
}

func (f *rolloverFlags) define(cmd *cobra.Command, extra string) {
	cmd.Flags().Var(&f.max, "rollover", "let the next window use what one leaves of its limit, at most this much"+extra)
	cmd.Flags().Var(&f.total, "rollover-total", "keep at most this much of what rolled over")
	cmd.Flags().Int64Var(&f.windows, "rollover-windows", 1, "how many windows may use it: `N`, up to 12")
}

// value returns what to roll over; nil for none.
func (f *rolloverFlags) value(cmd *cobra.Command) (*earmark.Rollover, error) {
	if f.max.value == nil {
		if f.total.value != nil || cmd.Flags().Changed("rollover-windows") {
			return nil, usageError{errors.New("--rollover-total and --rollover-windows go with --rollover AMOUNT")}
		}
		return nil, nil
	}
	if f.windows < 1 || f.windows > earmark.MaxRolloverWindows {
		return nil, usageError{errors.New("--rollover-windows: 1 to 12 are allowed")}
	}
	return &earmark.Rollover{Max: *f.max.value, MaxTotal: f.total.value, Windows: f.windows}, nil
}

// extraFlags are those of settings that most budgets do without.
type extraFlags struct {
	thresholds []string
	rollover   rolloverFlags
}

func (f *extraFlags) define(cmd *cobra.Command, thresholds, rollover string) {
	thresholdsFlag(cmd, &f.thresholds, thresholds)
	f.rollover.define(cmd, rollover)
}

func (f *extraFlags) values(cmd *cobra.Command) ([]earmark.Threshold, *earmark.Rollover, error) {
	thresholds, err := parseThresholds(f.thresholds)
	if err != nil {
		return nil, nil, err
	}
	rollover, err := f.rollover.value(cmd)
	return thresholds, rollover, err
}

// change adds what is given to a patch.
func (f *extraFlags) change(cmd *cobra.Command, patch *earmark.BudgetPatch) error {
	thresholds, rollover, err := f.values(cmd)
	if len(f.thresholds) > 0 {
		patch.Thresholds = &thresholds
	}
	if f.rollover.max.given {
		patch.Rollover = &rollover
	}
	return err
}

// rolloverWords say what a budget rolls over; "" for nothing.
func rolloverWords(r *earmark.Rollover) string {
	if r == nil {
		return ""
	}
	words := "up to " + earmark.FormatAmount(r.Max)
	if r.MaxTotal != nil {
		words += ", " + earmark.FormatAmount(*r.MaxTotal) + " in all"
	}
	if r.Windows > 1 {
		words += fmt.Sprintf(", for %d windows", r.Windows)
	}
	return words
}
