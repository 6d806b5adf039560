package usage

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// FuzzValid compares valid with the standard library's.
func FuzzValid(f *testing.F) {
	for _, s := range []string{
		``, ` `, `{`, `{}`, ` {"a" : [1, -0.5e+3, true,false ,null, "\u00e4\n\"" ] } `, `{"a":1,}`, `[1,]`, `[,]`, `{"a"}`, `{a:1}`, `01`, `-`, `1.`, `.5`, `1e`, `"\x"`,
		`"\u12g4"`, "\"\x01\"", `nul`, `truefalse`, `{"a":1}{`, `[[]]`, `"`, `"\`, `{"a":{"b":[{}]}}`, "\"\xff\"",
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, s []byte) {
		if strings.Count(string(s), "[")+strings.Count(string(s), "{") < maxDepth {
			require.Equal(t, json.Valid(s), valid(s), "%q", s)
		}
	})
}

func TestDepthIsLimited(t *testing.T) {
	t.Parallel()
	deep := func(n int) []byte { return []byte(strings.Repeat("[", n) + strings.Repeat("]", n)) }
	require.True(t, valid(deep(maxDepth-1)))
	require.False(t, valid(deep(maxDepth+1)))
	require.False(t, valid([]byte(strings.Repeat("[", 1<<20))))
}
