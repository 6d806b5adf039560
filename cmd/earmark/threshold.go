package main

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/earmark-dev/earmark"
)

// noThresholds is the word that removes the thresholds of a budget.
const noThresholds = "none"

func thresholdsFlag(cmd *cobra.Command, words *[]string, extra string) {
	cmd.Flags().StringSliceVar(words, "threshold", nil, "write an event when the balance reaches `PART`, such as 80% or 5_000 of what is\ncommitted, or 80%:used to count what is reserved too; may be repeated"+extra)
	completeWords(cmd, "threshold", []string{"80%", "100%", "80%:used"})
}

// parseThresholds reads the words of --threshold; none removes all.
func parseThresholds(words []string) ([]earmark.Threshold, error) {
	thresholds := []earmark.Threshold{}
	for _, word := range words {
		if word == noThresholds {
			if len(words) > 1 {
				return nil, usageError{errors.New("--threshold none goes with no other --threshold")}
			}
			return thresholds, nil
		}
		part, of, found := strings.Cut(word, ":")
		if !found {
			of = earmark.ThresholdOfCommitted
		}
		threshold := earmark.Threshold{Of: of}
		var err error
		if percent, ok := strings.CutSuffix(part, "%"); ok {
			threshold.Percent, err = strconv.ParseInt(percent, 10, 64)
		} else {
			threshold.Amount, err = parseAmount(part)
		}
		if err != nil {
			return nil, usageError{fmt.Errorf("--threshold: %q is not a part such as 80%%, 5_000 or 80%%:used", word)}
		}
		thresholds = append(thresholds, threshold)
	}
	if err := earmark.ValidateThresholds("thresholds", thresholds); err != nil {
		return nil, usageError{fmt.Errorf("--threshold: %w", err)}
	}
	return thresholds, nil
}

// thresholdWords are the thresholds as --threshold takes them.
func thresholdWords(thresholds []earmark.Threshold) string {
	words := make([]string, len(thresholds))
	for i, t := range thresholds {
		words[i] = earmark.FormatAmount(t.Amount)
		if t.Percent > 0 {
			words[i] = strconv.FormatInt(t.Percent, 10) + "%"
		}
		words[i] += " " + t.Of
	}
	return strings.Join(words, ", ")
}
