//go:build unix

package main

import (
	"math"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/earmark-dev/earmark"
)

func TestParseAmount(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]int64{
		"0": 0, "7": 7, "1200": 1_200, "1,200": 1_200, "1_000_000": 1_000_000, "12,345,678": 12_345_678,
		"9,223,372,036,854,775,807": math.MaxInt64, "007": 7,
	} {
		got, err := parseAmount(text)
		require.NoError(t, err, text)
		require.Equal(t, want, got, text)
	}
	for text, words := range map[string]string{
		"": "it is empty", "-5": "it is negative", "1.5": "a point", "1.000": "a point", "1e6": "only digits", "10k": "only digits", "1 000": "only digits",
		"+5": "only digits", "1,00": "groups of three", "1,2,3": "groups of three", ",100": "groups of three", "100,": "groups of three",
		"1__000": "groups of three", "1000,000": "groups of three", "1,000_000": "mixes commas and underscores",
		"9223372036854775808": "the largest amount is 9,223,372,036,854,775,807",
	} {
		_, err := parseAmount(text)
		require.ErrorContains(t, err, words, text)
	}
}

// What is shown may be typed.
func TestAmountsAreReadAsTheyAreWritten(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.Int64Min(0).Draw(t, "n")
		got, err := parseAmount(earmark.FormatAmount(n))
		if err != nil || got != n {
			t.Fatalf("%d is written %s and read %d, %v", n, earmark.FormatAmount(n), got, err)
		}
	})
}

func TestTTL(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]time.Duration{"1": time.Second, "300": 5 * time.Minute, "90s": 90 * time.Second, "1h30m": 90 * time.Minute, "168h": earmark.MaxTTL} {
		var ttl ttlFlag
		require.NoError(t, ttl.Set(text))
		require.Equal(t, want, time.Duration(ttl))
	}
	for _, text := range []string{"", "0", "-1", "-5m", "0s", "1.5", "soon", "168h1s", "1s1ms", "99999999999999999999"} {
		var ttl ttlFlag
		require.Error(t, ttl.Set(text), text)
	}
}

func TestSpan(t *testing.T) {
	t.Parallel()
	for d, want := range map[time.Duration]string{
		time.Second: "1s", 59 * time.Second: "59s", time.Minute: "1m", 100 * time.Second: "1m 40s", 10*time.Minute + 30*time.Second: "10m",
		3*time.Hour + 20*time.Minute: "3h 20m", 26 * time.Hour: "1d 2h", 24 * time.Hour: "1d", 400 * 24 * time.Hour: "400d",
	} {
		require.Equal(t, want, span(d))
	}
	require.Equal(t, "now", relative(-300*time.Millisecond))
	require.Equal(t, "in 5m", relative(5*time.Minute))
	require.Equal(t, "2s ago", relative(-2*time.Second))
}

func TestPercentOfHugeAmounts(t *testing.T) {
	t.Parallel()
	require.EqualValues(t, 100, percentOf(math.MaxInt64, math.MaxInt64))
	require.EqualValues(t, -100, percentOf(-math.MaxInt64, math.MaxInt64))
	require.EqualValues(t, 33, percentOf(1, 3))
}

func TestShellWord(t *testing.T) {
	t.Parallel()
	for word, want := range map[string]string{"chat-7f3a": "chat-7f3a", "": "''", "a b": "'a b'", "it's": `'it'\''s'`, "$(x)": "'$(x)'"} {
		require.Equal(t, want, shellWord(word))
	}
}
