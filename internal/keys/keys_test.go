package keys_test

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"log/slog"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/earmark-dev/earmark"
	"github.com/earmark-dev/earmark/internal/keys"
)

// example is a key that nobody holds. Its checksum was computed outside of this package: the CRC-32 of
// what comes before it is 0xD1DC7E02.
const example = "emk_abcdefgh0129_0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefg3qHHtK"

func TestForm(t *testing.T) {
	t.Parallel()
	form := regexp.MustCompile(`^emk_[a-z0-9]{12}_[0-9A-Za-z]{43}[0-9A-Za-z]{6}$`)
	seen := map[string]bool{}
	for range 1000 {
		token := keys.New()
		require.Regexp(t, form, token.Text())
		require.True(t, earmark.IsKeyID(token.ID))
		require.False(t, seen[token.ID])
		seen[token.ID] = true
		parsed, err := keys.Parse(token.Text())
		require.NoError(t, err)
		require.Equal(t, token, parsed)
		require.True(t, keys.Equal(token.Hash(), parsed.Hash()))
		require.False(t, keys.Equal(token.Hash(), keys.New().Hash()))
	}
}

func TestExample(t *testing.T) {
	t.Parallel()
	token, err := keys.Parse(example)
	require.NoError(t, err)
	require.Equal(t, "abcdefgh0129", token.ID)
	require.Equal(t, example, token.Text())
	require.Equal(t, sha256.Sum256([]byte("0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefg")), token.Hash())
}

// A single wrong character, or two that are swapped, is mistyped and never another key.
func TestMistyped(t *testing.T) {
	t.Parallel()
	for i := len("emk_"); i < len(example); i++ {
		if example[i] == '_' {
			continue
		}
		for _, other := range "a7" {
			if rune(example[i]) == other {
				continue
			}
			_, err := keys.Parse(example[:i] + string(other) + example[i+1:])
			require.ErrorIs(t, err, keys.ErrMistyped, "%d", i)
		}
		if i > 17 && i+1 < len(example) && example[i] != example[i+1] {
			_, err := keys.Parse(example[:i] + string(example[i+1]) + string(example[i]) + example[i+2:])
			require.ErrorIs(t, err, keys.ErrMistyped, "%d", i)
		}
	}
}

func TestMalformed(t *testing.T) {
	t.Parallel()
	for _, text := range []string{
		"", "emk_", "emk", "x", "Bearer " + example, example + " ", " " + example, example + "0", example[:len(example)-1],
		strings.ToUpper(example), "emx_" + example[4:], strings.Replace(example, "h0129_", "h01290", 1), strings.Replace(example, "abc", "ABC", 1),
		strings.Replace(example, "0123456789", "012345678!", 1), strings.Replace(example, "0123456789", "01234567é", 1), example[:len(example)-1] + "_",
		strings.Repeat("a", 1<<20),
	} {
		_, err := keys.Parse(text)
		require.ErrorIs(t, err, keys.ErrMalformed, "%.80q", text)
	}
}

// Nothing that prints a token prints its secret.
func TestNothingPrintsTheSecret(t *testing.T) {
	t.Parallel()
	token, err := keys.Parse(example)
	require.NoError(t, err)
	encoded, err := json.Marshal(token)
	require.NoError(t, err)
	var log strings.Builder
	slog.New(slog.NewJSONHandler(&log, nil)).Info("key", "token", token, "pointer", &token)
	slog.New(slog.NewTextHandler(&log, nil)).Info("key", "token", token, "pointer", &token)
	printed := fmt.Sprintf("%v %+v %s %#v %q %v %s %s", token, token, token, token, token, &token, encoded, log.String())
	require.NotContains(t, printed, "0123456789AB")
	require.Contains(t, printed, "emk_abcdefgh0129_…")
}

func FuzzParse(f *testing.F) {
	f.Add(example)
	f.Add("emk_")
	f.Fuzz(func(t *testing.T, text string) {
		token, err := keys.Parse(text)
		if err == nil {
			require.Equal(t, text, token.Text(), "what parses is written the same again")
			return
		}
		require.True(t, err == keys.ErrMalformed || err == keys.ErrMistyped) //nolint:errorlint // the very errors, which hold nothing of the text
	})
}
