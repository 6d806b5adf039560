package client

import (
	"math"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/earmark-dev/earmark"
)

func TestMeter(t *testing.T) {
	t.Parallel()
	var m Meter
	require.Nil(t, m.Usage())
	require.Nil(t, m.report(hundred).usage, "a meter that was not used says nothing")
	m.Add(nil)
	require.NotNil(t, m.Usage(), "a zero is a word")
	m.Add(earmark.Amounts{"tokens": 2, "requests": 1})
	m.Add(earmark.Amounts{"tokens": 3})
	m.Set(earmark.Amounts{"tokens": 4})
	require.Equal(t, earmark.Amounts{"tokens": 4, "requests": 1}, m.Usage())
	m.Usage()["tokens"] = 99
	require.Equal(t, int64(4), m.Usage()["tokens"], "the caller has a copy")

	m.Set(earmark.Amounts{"tokens": math.MaxInt64 - 1})
	m.Add(earmark.Amounts{"tokens": 5})
	require.Equal(t, int64(math.MaxInt64), m.Usage()["tokens"])
	require.Equal(t, int64(math.MinInt64), saturatingAdd(math.MinInt64, -1))
	require.Equal(t, int64(-1), saturatingAdd(math.MaxInt64, math.MinInt64))
}
