//go:build unix

// Package scopes tests that the examples in TypeScript and Python make the same
// scopes of ids as earmark.ScopeOf, and read the same ids back.
package scopes

import (
	"bytes"
	"encoding/json"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/earmark-dev/earmark"
)

const inNode = `
import { readFileSync } from "node:fs";
import { scopeOf, scopeIDs } from "./scope.mjs";
const attempt = (id) => { try { return scopeOf("acme", id); } catch { return ""; } };
const { ids, scopes } = JSON.parse(readFileSync(0));
console.log(JSON.stringify({ ids: scopes.map(scopeIDs), scopes: ids.map(attempt) }));
`

const inPython = `
import json, sys
from scope import scope_of, scope_ids
def attempt(id):
    try:
        return scope_of("acme", id)
    except ValueError:
        return ""
given = json.load(sys.stdin)
json.dump({"ids": [scope_ids(s) for s in given["scopes"]], "scopes": [attempt(i) for i in given["ids"]]}, sys.stdout)
`

type given struct {
	IDs    []string `json:"ids"`
	Scopes []string `json:"scopes"`
}

type made struct {
	IDs    [][]string `json:"ids"`
	Scopes []string   `json:"scopes"` // empty where the id is refused
}

func TestAllLanguagesAgree(t *testing.T) {
	t.Parallel()
	in := inputs(t)
	var want made
	for _, id := range in.IDs {
		scope, err := earmark.ScopeOf("acme", id)
		require.Equal(t, err != nil, scope == "")
		want.Scopes = append(want.Scopes, scope)
	}
	for _, scope := range in.Scopes {
		want.IDs = append(want.IDs, earmark.ScopeIDs(scope))
	}
	for name, run := range map[string]struct {
		file, example, script string
		command               []string
	}{
		"TypeScript": {"scope.mjs", "scope.ts", inNode, []string{"node", "--input-type=module", "--eval"}},
		"Python":     {"scope.py", "scope.py", inPython, []string{"python3", "-c"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			code, err := os.ReadFile(run.example)
			require.NoError(t, err)
			require.NoError(t, os.WriteFile(filepath.Join(dir, run.file), code, 0o600))
			body, err := json.Marshal(in)
			require.NoError(t, err)
			cmd := exec.CommandContext(t.Context(), run.command[0], append(run.command[1:], run.script)...)
			cmd.Dir, cmd.Stdin = dir, bytes.NewReader(body)
			var stderr bytes.Buffer
			cmd.Stderr = &stderr
			output, err := cmd.Output()
			require.NoError(t, err, "%s", &stderr)
			var got made
			require.NoError(t, json.Unmarshal(output, &got))
			require.Equal(t, want, got)
		})
	}
}

// inputs are ids as they are seen, and others by chance, and segments that look
// encoded.
func inputs(t *testing.T) given {
	t.Helper()
	const byChance = 500
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	draw := func(alphabet string, most int) string {
		var text strings.Builder
		runes := []rune(alphabet)
		for range random.IntN(most + 1) {
			text.WriteRune(runes[random.IntN(len(runes))])
		}
		return text.String()
	}
	in := given{
		IDs: []string{
			"u1", "a@b.com", "auth0|12", "org:7", "user_1", "user_1@b", "x--a", "x--", "", "a/b", "Zoë", "漢字", "😀", "!'()*~", "%40", "a+b c",
			strings.Repeat("a", 63), strings.Repeat("a", 64), strings.Repeat("a", 57) + "@", strings.Repeat("a", 58) + "@", "a\x00\n\u202e",
		},
		Scopes: []string{"acme/u1", "x--", "x--plain", "x--a_4", "x--a_4g", "x--a_6a", "x--a_FF", "x--a_61", "x--_C3", "x--a_40b/x--org_3A7", "x--a%40", "user_40"},
	}
	for range byChance {
		id := draw("aZ9_.-@|:/%+ ~!'()*x漢é😀", 25)
		in.IDs = append(in.IDs, id)
		in.Scopes = append(in.Scopes, "x--"+draw("a_4056C3BF.-x", 12))
		if scope, err := earmark.ScopeOf(id); err == nil {
			in.Scopes = append(in.Scopes, scope)
		}
	}
	return in
}
