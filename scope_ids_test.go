package earmark

import (
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

func TestScopeOf(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		ids            []string
		scope, display string
	}{
		{[]string{"acme", "ml", "u1"}, "acme/ml/u1", "acme/ml/u1"},
		{[]string{"acme", "a@b.com"}, "acme/x--a_40b.com", "acme/a@b.com"},
		{[]string{"auth0|12"}, "x--auth0_7C12", "auth0|12"},
		{[]string{"org:7", "user_2abC-d.e"}, "x--org_3A7/user_2abC-d.e", "org:7/user_2abC-d.e"},
		{[]string{"user_1@b"}, "x--user_5F1_40b", "user_1@b"},
		{[]string{"Zoë"}, "x--Zo_C3_AB", "Zoë"},
		{[]string{"a/b"}, "x--a_2Fb", "x--a_2Fb"},
		{[]string{"Anna Schmidt"}, "x--Anna_20Schmidt", "x--Anna_20Schmidt"},
		{[]string{"a\u202eb"}, "x--a_E2_80_AEb", "x--a_E2_80_AEb"},
		{[]string{"x--a_40b"}, "x--x--a_5F40b", "x--x--a_5F40b"},
		{[]string{strings.Repeat("é", 10)}, "x--" + strings.Repeat("_C3_A9", 10), strings.Repeat("é", 10)},
	} {
		scope, err := ScopeOf(test.ids...)
		require.NoError(t, err)
		require.Equal(t, test.scope, scope)
		require.Equal(t, test.ids, ScopeIDs(scope))
		require.Equal(t, test.display, DisplayScope(scope))
	}
}

func TestParseBudgetScope(t *testing.T) {
	t.Parallel()
	for text, scope := range map[string]string{
		"*": "*", "app/users/*": "app/users/*", "acme/a@b.com/*": "acme/x--a_40b.com/*", "acme/a@b.com": "acme/x--a_40b.com",
	} {
		got, err := ParseBudgetScope("scope", text)
		require.NoError(t, err, text)
		require.Equal(t, scope, got)
		require.NoError(t, ValidateBudgetScope("scope", scope))
	}
	for _, text := range []string{"", "/*", "*/*", "*/a", "a/*/b", "a/*/*", "a/b/c/d/e/f/g/h/*"} {
		_, err := ParseBudgetScope("scope", text)
		require.ErrorContains(t, err, "scope", text)
		require.Error(t, ValidateBudgetScope("scope", text))
		require.Error(t, ValidateScope("scope", text))
	}
}

func TestScopeOfRefuses(t *testing.T) {
	t.Parallel()
	for field, ids := range map[string][]string{
		"ids[1]": {"acme", ""},
		"ids[0]": {strings.Repeat("a", 59) + "@b"}, // 3 + 59 + 3 + 1 bytes
		"ids[2]": {"a", "b", "\xff"},
		"scope":  {"1", "2", "3", "4", "5", "6", "7", "8", "9"},
	} {
		_, err := ScopeOf(ids...)
		var e *Error
		require.ErrorAs(t, err, &e)
		require.Equal(t, CodeInvalidRequest, e.Code)
		require.Equal(t, field, e.Field)
	}
	_, err := ScopeOf()
	require.Error(t, err)
	_, err = ScopeOf(strings.Repeat("a", 58) + "@b")
	require.ErrorContains(t, err, "takes 65 bytes as a segment of a scope; at most 63 are allowed")
	_, err = ScopeOf(strings.Repeat("a", 56) + "@b")
	require.NoError(t, err)
}

// What was no scope of ScopeOf's before is shown and read as it is.
func TestScopesOfOthersStayAsTheyAre(t *testing.T) {
	t.Parallel()
	for _, scope := range []string{"x--", "x--plain", "x--a_4", "x--a_4g", "x--a_6a", "x--a_FF", "x--a_61", "user_40", "a_40b"} {
		require.Equal(t, scope, DisplayScope(scope))
		require.Equal(t, []string{scope}, ScopeIDs(scope))
		parsed, err := ParseScope("scope", scope)
		require.NoError(t, err)
		require.Equal(t, scope, parsed)
	}
}

func TestParseScopeRefuses(t *testing.T) {
	t.Parallel()
	for _, text := range []string{"", "a//b", "a/", "acme/a b", "a\x1bb", strings.Repeat("@", 21)} {
		_, err := ParseScope("SCOPE", text)
		require.Equal(t, CodeInvalidRequest, ErrorCode(err), "%q", text)
	}
}

// ids draws from what real ids have, and from what an encoding may trip over.
func ids() *rapid.Generator[string] {
	return rapid.OneOf(
		rapid.StringOfN(rapid.SampledFrom([]rune(`abX09_.-@|:/%+ _4x"é漢`)), 1, 20, -1),
		rapid.Map(rapid.StringOfN(rapid.SampledFrom([]rune(`x-_.40AFf@`)), 0, 12, -1), func(s string) string { return "x--" + s }),
		rapid.StringN(1, 20, -1),
	)
}

func TestScopesOfIDsRoundTripAndDoNotCollide(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		a := rapid.SliceOfN(ids(), 1, 3).Draw(t, "a")
		b := rapid.SliceOfN(ids(), 1, 3).Draw(t, "b")
		scopeA, errA := ScopeOf(a...)
		scopeB, errB := ScopeOf(b...)
		if errA != nil {
			require.Equal(t, CodeInvalidRequest, ErrorCode(errA))
			return
		}
		require.NoError(t, ValidateScope("scope", scopeA))
		require.Equal(t, a, ScopeIDs(scopeA))
		if errB == nil {
			require.Equal(t, strings.Join(a, "\x00") == strings.Join(b, "\x00"), scopeA == scopeB)
		}
		requireReadBack(t, scopeA)
	})
}

// requireReadBack checks that what people see of a scope means that scope and no other.
func requireReadBack(t require.TestingT, scope string) {
	shown := DisplayScope(scope)
	parsed, err := ParseScope("scope", shown)
	require.NoError(t, err)
	require.Equal(t, scope, parsed)
	require.True(t, utf8.ValidString(shown))
	require.Equal(t, strings.Count(scope, "/"), strings.Count(shown, "/"))
}

func TestWhatIsShownOfAnyScopeIsReadBack(t *testing.T) {
	t.Parallel()
	segment := rapid.OneOf(rapid.StringMatching(`[A-Za-z0-9_.-]{1,20}`), rapid.StringMatching(`x--[A-Fa-f0-9_.-]{0,20}`), rapid.StringMatching(`x--(a|_4[0-9A-F]|_5F){0,6}`))
	rapid.Check(t, func(t *rapid.T) {
		requireReadBack(t, strings.Join(rapid.SliceOfN(segment, 1, 3).Draw(t, "segments"), "/"))
	})
}
