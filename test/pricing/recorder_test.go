//go:build compareprices

package pricing_test

import (
	"compress/gzip"
	"encoding/json"
	"os"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
)

// The short form has this many models of each program, those with tiers and variants first.
const recordedModels = 120

// chosen picks the models of the short form, with their systematic cases.
func chosen(program string, outcomes []outcome) []recordedModel {
	var models []recordedModel
	index := map[string]int{}
	for i := range outcomes {
		o := &outcomes[i]
		if o.Case.Shape == "random" {
			continue
		}
		name := o.Case.Provider + "/" + o.Case.Model
		at, found := index[name]
		if !found {
			at = len(models)
			index[name] = at
			models = append(models, recordedModel{Program: program, Entry: *o.Entry})
		}
		models[at].Cases = append(models[at].Cases, o.Case)
		models[at].Answers = append(models[at].Answers, o.Theirs)
	}
	// Half of them with tiers or variants, the other half from all over the table.
	special := slices.DeleteFunc(slices.Clone(models), func(m recordedModel) bool { return len(m.Entry.Tiers)+len(m.Entry.Variants) == 0 })
	plain := slices.DeleteFunc(slices.Clone(models), func(m recordedModel) bool { return len(m.Entry.Tiers)+len(m.Entry.Variants) > 0 })
	picked := spread(special, recordedModels/2)
	return append(picked, spread(plain, recordedModels-len(picked))...)
}

func spread(models []recordedModel, n int) []recordedModel {
	if len(models) <= n {
		return models
	}
	picked := make([]recordedModel, 0, n)
	for i := range n {
		picked = append(picked, models[i*len(models)/n])
	}
	return picked
}

func writeRecord(t *testing.T, name string, models []recordedModel) {
	t.Helper()
	for i := range models {
		models[i].Entry.Match, models[i].Entry.Source = nil, ""
	}
	file, err := os.Create(name)
	require.NoError(t, err)
	zipped, err := gzip.NewWriterLevel(file, gzip.BestCompression)
	require.NoError(t, err)
	require.NoError(t, json.NewEncoder(zipped).Encode(models))
	require.NoError(t, zipped.Close())
	require.NoError(t, file.Close())
}
