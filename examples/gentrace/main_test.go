package main

import (
	"bytes"
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/earmark-dev/earmark/internal/replay"
)

func TestTheTraceIsWhatTheGeneratorMakes(t *testing.T) {
	t.Parallel()
	var made bytes.Buffer
	require.NoError(t, generate(&made, defaultSeed, defaultDuration))
	stored, err := os.ReadFile("../trace.csv")
	require.NoError(t, err)
	require.Equal(t, made.String(), string(stored), "run: go run ./examples/gentrace > examples/trace.csv")
}

func TestTheTraceIsOne(t *testing.T) {
	t.Parallel()
	for seed := range uint64(20) {
		var made bytes.Buffer
		require.NoError(t, generate(&made, seed, defaultDuration))
		extent, err := replay.Measure(&made, 512, 0)
		require.NoError(t, err, "seed %d", seed)
		require.Greater(t, extent.Rows, int64(200), "seed %d", seed)
		require.Less(t, extent.Rows, int64(900), "seed %d", seed)
		require.Less(t, extent.Last.Sub(extent.First), defaultDuration, "seed %d", seed)
		require.Greater(t, extent.Last.Sub(extent.First), defaultDuration-time.Second, "seed %d", seed)
	}
}

func TestAnotherSeedMakesAnotherTrace(t *testing.T) {
	t.Parallel()
	var one, other bytes.Buffer
	require.NoError(t, generate(&one, 1, defaultDuration))
	require.NoError(t, generate(&other, 2, defaultDuration))
	require.NotEqual(t, one.String(), other.String())
}
