package pricing_test

import (
	"compress/gzip"
	"encoding/json"
	"io"
	"os"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/earmark-dev/earmark/pricing"
)

// recordedModel is a model with what another program answered; make compare-prices records it with ARGS=-record.
type recordedModel struct {
	Program string        `json:"program"`
	Entry   pricing.Entry `json:"entry"`
	Cases   []testCase    `json:"cases"`
	Answers []answer      `json:"answers"`
}

const recordFile = "testdata/recorded.json.gz"

// TestRecordedPrices is the short form of make compare-prices: the answers of the other programs as they were recorded.
func TestRecordedPrices(t *testing.T) {
	t.Parallel()
	file, err := os.Open(recordFile)
	require.NoError(t, err)
	defer func() { _ = file.Close() }()
	unzipped, err := gzip.NewReader(file)
	require.NoError(t, err)
	text, err := io.ReadAll(unzipped)
	require.NoError(t, err)
	var models []recordedModel
	require.NoError(t, json.Unmarshal(text, &models))
	require.GreaterOrEqual(t, len(models), 300)

	equal, shapes := 0, map[string]bool{}
	for _, m := range models {
		table, err := pricing.NewTable(m.Entry)
		require.NoError(t, err)
		require.Len(t, m.Answers, len(m.Cases))
		for i, c := range m.Cases {
			charge, err := table.Price(c.usage(), c.query())
			o := outcome{Case: c, Entry: &m.Entry, Error: err, Theirs: m.Answers[i]}
			if err == nil {
				o.Ours = charge.USD()
			}
			why := explain(m.Program, &o)
			require.NotEmpty(t, why, "%s: %+v: here %s %v, there %s", m.Program, c, here(&o), err, there(&o))
			if why == equalPrice {
				equal++
				shapes[c.Shape] = true
			}
		}
	}
	require.Greater(t, equal, 5000)
	require.GreaterOrEqual(t, len(shapes), 8)
}
