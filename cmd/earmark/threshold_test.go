package main

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/earmark-dev/earmark"
)

func TestParseThresholds(t *testing.T) {
	t.Parallel()
	parts, err := parseThresholds([]string{"80%", "5_000", "100%:used"})
	require.NoError(t, err)
	require.Equal(t, []earmark.Threshold{{Percent: 80, Of: "committed"}, {Amount: 5000, Of: "committed"}, {Percent: 100, Of: "used"}}, parts)
	require.Equal(t, "80% committed, 5,000 committed, 100% used", thresholdWords(parts))
	none, err := parseThresholds([]string{"none"})
	require.NoError(t, err)
	require.Empty(t, none)
	for _, wrong := range []string{"101%", "0%", "-1%", "x", "80%:reserved", "1.5%", "0"} {
		_, err := parseThresholds([]string{wrong})
		require.ErrorAs(t, err, new(usageError), wrong)
	}
	_, err = parseThresholds([]string{"none", "80%"})
	require.Error(t, err)
	_, err = parseThresholds([]string{"80%", "80%"})
	require.ErrorContains(t, err, "twice")
}
