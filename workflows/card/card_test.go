package card

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/earmark-dev/earmark"
	"github.com/earmark-dev/earmark/activities"
)

func cardOf(state earmark.State) Card {
	return Card{
		ID: earmark.ReservationID(earmark.DefaultTenant, "k"), Snapshot: activities.Snapshot{Outcome: earmark.OutcomeApplied, State: state},
		Request: earmark.ReservationRequest{
			Scopes: []string{"acme/ml/u1", "models/large"}, Amounts: earmark.Amounts{"tokens": 1200, "requests": 1},
		}.WithDefaults(),
	}
}

func TestCardSaysWhereItStandsAndWhatToDo(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 3, 4, 12, 0, 0, 0, time.UTC)
	c := cardOf(earmark.StateHeld)
	c.ExpiresAt = now.Add(5 * time.Minute)
	id := c.ID
	require.Equal(t, "### Held\n\nNothing has to be done: the caller settles it, or the lease runs out.\n\n| | |\n| --- | --- |\n"+
		"| expires | 2026-03-04 12:05:00 UTC (in 5m, as of 12:00:00), then release |\n"+
		"| state | **held**: budget is set aside, the lease runs |\n"+
		"| set aside | 1 request + 1,200 tokens on `acme/ml/u1`, `models/large` |\n", c.Markdown(now))
	require.Contains(t, c.Markdown(now.Add(time.Hour)), "(55m ago, as of 13:00:00)")

	c.Snapshot.OnExpiry = earmark.OnExpiryReview // the ledger's word, after a refused commit
	require.Contains(t, c.Markdown(now), "as of 12:00:00), then review |")

	c.Failing, c.Failure = "commit", errors.New("no route | to <b>host</b>\n`x` [y](http://z)").Error()
	text := c.Markdown(now)
	require.True(t, strings.HasPrefix(text, "### The ledger does not answer: commit\n"), text)
	require.Contains(t, text, "earmark release "+id)
	require.Contains(t, text, `| last error | no route \| to \<b\>host\</b\> \`+"`x\\`"+` \[y\]\(http\://z\) |`)

	c = cardOf(earmark.StateReview)
	require.Contains(t, c.Markdown(now), "earmark commit "+id+` requests=<used> tokens=<used> --reason <why>`)
	require.NotContains(t, c.Markdown(now), "expires")
	require.Contains(t, cardOf(earmark.StateExpired).Markdown(now), "usage that arrives later is still charged")

	c = cardOf("")
	c.Snapshot.Outcome = earmark.OutcomeDenied
	c.Snapshot.Decision = &earmark.Decision{Violations: []earmark.Violation{{Scope: "acme", Unit: "tokens", Limit: 1000, Available: 400, Requested: 1200}}}
	require.Contains(t, c.Markdown(now), "`acme`: 400 of 1,000 tokens available, 1,200 asked for")
	require.Contains(t, c.Markdown(now), "nothing is set aside (denied)")
}

// What others wrote is plain text wherever it is shown.
func TestDetailsEscapeMetadata(t *testing.T) {
	t.Parallel()
	c := cardOf(earmark.StateHeld)
	request := c.Request
	request.Metadata = earmark.Metadata{"a|b": "```\n# <script>alert(1)</script> ![x](y) &lt; | | \x1b[31m", "long": strings.Repeat("x", earmark.MaxMetadataBytes), "more": strings.Repeat("y", earmark.MaxMetadataBytes)}
	details := Details(c.ID, request)
	require.Contains(t, details, "| metadata | a\\|b=\\`\\`\\` \\# \\<script\\>alert\\(1\\)\\</script\\> \\!\\[x\\]\\(y\\) \\&lt; \\| \\| \ufffd\\[31m, long=xxx")
	require.Contains(t, details, ", … |\n")
	require.Less(t, len(details), 3*maxMetadataShown)
	require.Contains(t, details, "| lease | 5m from admission")
	require.Contains(t, details, "earmark show "+c.ID)
}

func TestEscapeCutsAtACharacter(t *testing.T) {
	t.Parallel()
	require.Equal(t, "ä…", escape("ää", 3))
	require.Equal(t, "ä", escape("ä", 2))
}

func TestSpans(t *testing.T) {
	t.Parallel()
	for text, d := range map[string]time.Duration{"5m": 5 * time.Minute, "1h": time.Hour, "1h5m": 65 * time.Minute, "20s": 20 * time.Second, "1m5s": 65 * time.Second, "168h": earmark.MaxTTL, "0s": 0, "1h0m5s": time.Hour + 5*time.Second} {
		require.Equal(t, text, span(d))
	}
}

// Metadata, reasons and errors hold what their writers like. What steers a screen is shown as what it is, as on the
// command line and on the status page.
func TestDetailsShowWhatSteersAScreen(t *testing.T) {
	t.Parallel()
	request := earmark.ReservationRequest{Scopes: []string{"acme"}, Amounts: earmark.Amounts{"tokens": 1}}
	request.Metadata = earmark.Metadata{"job": "a\u202eb\u009bc\x1bd\u2066e\u0085f 日本語"}
	require.Contains(t, Details("rsv_x", request), "job=a\ufffdb\ufffdc\ufffdd\ufffde\ufffdf 日本語")
	card := Card{ID: "rsv_x", Request: request, Failing: "commit", Failure: "two\r\n\tlines \u202e\x1b"}
	require.Contains(t, card.Markdown(time.Unix(0, 0)), "two  lines \ufffd\ufffd")
}
