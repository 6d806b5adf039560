package payloads

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	commonpb "go.temporal.io/api/common/v1"
	failurepb "go.temporal.io/api/failure/v1"
	"go.temporal.io/sdk/converter"
)

func keysOf(t *testing.T, lines ...string) *Keys {
	t.Helper()
	keys, err := ReadKeys(fileOf(t, strings.Join(lines, "\n")))
	require.NoError(t, err)
	return keys
}

func fileOf(t *testing.T, content string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "keys")
	require.NoError(t, os.WriteFile(path, []byte(content), 0o600))
	return path
}

func secret(t *testing.T) []*commonpb.Payload {
	t.Helper()
	payload, err := converter.GetDefaultDataConverter().ToPayload("planted")
	require.NoError(t, err)
	return []*commonpb.Payload{payload}
}

// The first key encrypts and every key decrypts, so that keys can be replaced; what is not encrypted stays as it is.
func TestKeysAreReplacedInSteps(t *testing.T) {
	t.Parallel()
	before, after := NewKey(), NewKey()
	require.NotEqual(t, before, after)
	alone, both, reversed := keysOf(t, "# the only one", "", before), keysOf(t, before, after), keysOf(t, after, before)
	old, err := alone.Encode(secret(t))
	require.NoError(t, err)
	require.NotContains(t, old[0].String(), "planted")
	young, err := reversed.Encode(secret(t))
	require.NoError(t, err)
	for _, keys := range []*Keys{both, reversed} {
		for _, encoded := range [][]*commonpb.Payload{old, young, secret(t)} {
			plain, err := keys.Decode(encoded)
			require.NoError(t, err)
			require.True(t, plain[0].Equal(secret(t)[0]))
		}
	}
	off := keysOf(t, "none", before)
	unchanged, err := off.Encode(secret(t))
	require.NoError(t, err)
	require.True(t, unchanged[0].Equal(secret(t)[0]))
	plain, err := off.Decode(old)
	require.NoError(t, err)
	require.True(t, plain[0].Equal(secret(t)[0]))

	_, err = alone.Decode(young)
	require.ErrorContains(t, err, `encrypted with the key "`+strings.Fields(after)[0]+`", which is not in the file of keys`)

	again, err := alone.Encode(old)
	require.NoError(t, err)
	require.Same(t, old[0], again[0], "a message that is sent again is encrypted once")
	other, err := alone.Encode(secret(t))
	require.NoError(t, err)
	require.NotEqual(t, old[0].GetData(), other[0].GetData(), "equal payloads do not look equal")

	old[0].Data[len(old[0].Data)-1] ^= 1
	_, err = alone.Decode(old)
	require.ErrorContains(t, err, "it was changed")
}

func TestWrongKeyFilesAreNamed(t *testing.T) {
	t.Parallel()
	good := NewKey()
	id, key, _ := strings.Cut(good, " ")
	for content, says := range map[string]string{
		"":                          "holds no key",
		"# none\n":                  "holds no key",
		good + "\n" + good:          "line 2: the id is given twice",
		id:                          "line 1: a key is an id",
		"none":                      "holds no key",
		"none\nnone":                "line 2: a key is an id",
		"none " + key:               "line 1: the id is given twice, or is the word none",
		"An_ID " + key:              "line 1: a key is an id",
		good + " more":              "line 1: a key is an id",
		id + " " + key[:40]:         "line 1: the key is not 32 bytes in base64",
		"\n" + id + " " + "?€":      "line 2: the key is not 32 bytes in base64",
		strings.Repeat("x", 70_000): "a line is too long",
	} {
		_, err := ReadKeys(fileOf(t, content))
		require.ErrorContains(t, err, says)
		require.NotContains(t, err.Error(), key[:40])
	}
	_, err := ReadKeys("/nowhere")
	require.ErrorContains(t, err, "no such file")
}

// A failure's text goes into a payload, once: a message that is sent again keeps it.
func TestFailuresHaveNoText(t *testing.T) {
	t.Parallel()
	keys := keysOf(t, NewKey())
	failure := &failurepb.Failure{Message: "planted", StackTrace: "planted"}
	for range 2 {
		require.NoError(t, keys.hideText(failure))
		require.Empty(t, failure.GetStackTrace())
		require.NotEqual(t, "planted", failure.GetMessage())
	}
	converter.DecodeCommonFailureAttributes(converter.GetDefaultDataConverter(), failure)
	require.Equal(t, "planted", failure.GetMessage())
	require.NoError(t, keys.hideText(failure), "one that was received and is sent on")
	require.NotEqual(t, "planted", failure.GetMessage())
}
