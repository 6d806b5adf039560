package api_test

import (
	"encoding/json"
	"os/exec"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

	"github.com/stretchr/testify/require"

	"github.com/earmark-dev/earmark"
)

// TestStatusPageShowsTheYearOfTheBudgetsZone reads a window's end in a browser that is
// still in the year before.
func TestStatusPageShowsTheYearOfTheBudgetsZone(t *testing.T) {
	t.Parallel()
	const script = `
		import { day } from "./status/words.js";
		const newYear = "2026-12-31T23:00:00Z";
		console.log(day(newYear, "Europe/Berlin", new Date("2026-12-31T12:00:00Z")));
		console.log(day(newYear, "Europe/Berlin", new Date("2026-12-31T23:30:00Z")));
		console.log(day(newYear, "America/New_York", new Date("2026-12-31T12:00:00Z")));
		console.log(day(newYear, "Area/Unknown", new Date("2026-12-31T12:00:00Z")));`
	cmd := exec.CommandContext(t.Context(), "node", "--no-warnings", "--input-type=module", "--eval", script)
	cmd.Env = append(cmd.Environ(), "TZ=America/New_York")
	output, err := cmd.CombinedOutput()
	require.NoError(t, err, "%s", output)
	require.Equal(t, []string{
		"1 Jan 2027, 00:00 Europe/Berlin",
		"1 Jan, 00:00 Europe/Berlin",
		"31 Dec, 18:00 America/New_York",
		"31 Dec, 23:00 UTC",
	}, strings.Split(strings.TrimSpace(string(output)), "\n"))
}

// TestStatusPageShowsScopesAsTheCommandLineDoes compares the page's words with
// earmark.DisplayScope.
func TestStatusPageShowsScopesAsTheCommandLineDoes(t *testing.T) {
	t.Parallel()
	scopes := []string{
		"acme/ml/u1", "user_40", "x--", "x--plain", "x--a_4", "x--a_4g", "x--a_6a", "x--a_FF", "x--a_61", "x--_C3_28",
		"x--a_2Fb", "x--a_20b", "x--a_0A", "x--x--a_5F40b", "x--x--a_40b", "x--_E2_80_AE", "x--_E2_80_8B", "x--_EE_80_80", "x--_C2_A0",
	}
	for _, id := range []string{"a@b.com", "auth0|12", "org:7", "user_1@b", "Zoë", "漢字", "😀", "!'()*~", "%40", "e\u0301", "<b>"} {
		scope, err := earmark.ScopeOf("acme", id)
		require.NoError(t, err)
		require.NotEqual(t, scope, earmark.DisplayScope(scope))
		scopes = append(scopes, scope)
	}
	given, err := json.Marshal(scopes)
	require.NoError(t, err)
	const script = `
		import { scopeWords } from "./status/words.js";
		console.log(JSON.stringify(JSON.parse(process.argv[1]).map(scopeWords)));`
	output, err := exec.CommandContext(t.Context(), "node", "--no-warnings", "--input-type=module", "--eval", script, string(given)).CombinedOutput()
	require.NoError(t, err, "%s", output)
	var shown []string
	require.NoError(t, json.Unmarshal(output, &shown))
	for i, scope := range scopes {
		require.Equal(t, earmark.DisplayScope(scope), shown[i], scope)
	}
}

// TestStatusPageShowsTextAsTheCommandLineDoes compares the page's rule for text of others with earmark.VisibleText, on
// every character that there is.
func TestStatusPageShowsTextAsTheCommandLineDoes(t *testing.T) {
	t.Parallel()
	const script = `
		import { visibleText } from "./status/words.js";
		const replaced = [];
		for (let code = 0; code <= 0x10ffff; code++) {
			if (code < 0xd800 || code > 0xdfff) if (visibleText(String.fromCodePoint(code)) !== String.fromCodePoint(code)) replaced.push(code);
		}
		console.log(JSON.stringify([replaced, visibleText("a\u202eb\u009bc\n日本語 é 😀")]));`
	output, err := exec.CommandContext(t.Context(), "node", "--no-warnings", "--input-type=module", "--eval", script).CombinedOutput()
	require.NoError(t, err, "%s", output)
	var replaced []rune
	var shown string
	require.NoError(t, json.Unmarshal(output, &[]any{&replaced, &shown}))
	require.Equal(t, "a\ufffdb\ufffdc\ufffd日本語 é 😀", shown)
	var want []rune
	for char := range rune(unicode.MaxRune + 1) {
		if utf8.ValidRune(char) && earmark.VisibleText(string(char)) != string(char) {
			want = append(want, char)
		}
	}
	require.Equal(t, want, replaced)
}
