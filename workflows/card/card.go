// Package card writes what Temporal UI shows of a reservation's workflow: a summary and
// details at its start, and a card with its current state. It is part of the workflow's
// code, and so is deterministic.
package card

import (
	"cmp"
	"fmt"
	"strings"
	"time"

	"github.com/earmark-dev/earmark"
	"github.com/earmark-dev/earmark/activities"
)

// Limits of what is shown. Temporal refuses a summary over 400 bytes and details over
// 20,000.
const (
	maxSummaryBytes  = 200
	maxMetadataShown = 1000 // bytes of metadata, in details that every history keeps
	maxErrorShown    = 500
)

// Summary is the one line that Temporal UI shows for a reservation, such as
// "acme/ml/u1 · 1,200 tokens".
func Summary(request earmark.ReservationRequest) string {
	summary := strings.Join(request.Scopes, ", ") + " · " + request.Amounts.String()
	if len(summary) > maxSummaryBytes {
		summary = fmt.Sprintf("%s and %d more scopes · %d units", request.Scopes[0][:min(len(request.Scopes[0]), 100)], len(request.Scopes)-1, len(request.Amounts))
	}
	return summary
}

// Details is what Temporal UI shows of the request and what can be done, readable
// with no worker alive. It does not change any more.
func Details(id string, request earmark.ReservationRequest) string {
	var table table
	table.row("scopes", code(request.Scopes...))
	table.row("asked for", request.Amounts.String())
	if request.TTLSeconds > 0 { // an adopted reservation's is not known
		table.row("lease", span(request.TTL())+" from admission, unless it was extended")
	}
	table.row("then", string(request.OnExpiry))
	table.row("metadata", metadataText(request.Metadata))
	return table.String() + "\nWhere it stands, and what settles it in the caller's place, whatever its workflow does:\n\n" +
		block("show "+id, commitCommand(id, request.Amounts, used), releaseCommand(id))
}

// Card is the current state of a reservation's workflow.
type Card struct {
	ID       string
	Request  earmark.ReservationRequest
	Snapshot activities.Snapshot
	// ExpiresAt is when the lease ends by the workflow's clock; zero where that is not known.
	ExpiresAt time.Time
	// Failing is the call that the ledger does not answer, and Failure its last error;
	// both are empty while the ledger answers.
	Failing, Failure string
	// Pending counts messages that have arrived and are not applied.
	Pending int
}

// onExpiry is the ledger's policy, which a refused commit has changed, or else the
// request's.
func (c Card) onExpiry() earmark.OnExpiry { return cmp.Or(c.Snapshot.OnExpiry, c.Request.OnExpiry) }

// Markdown says what to do and then where the reservation stands, as of now.
func (c Card) Markdown(now time.Time) string {
	var table table
	if c.Snapshot.State == earmark.StateHeld && !c.ExpiresAt.IsZero() {
		table.row("expires", fmt.Sprintf("%s (%s, as of %s), then %s", Stamp(c.ExpiresAt), untilText(c.ExpiresAt.Sub(now)), now.Format(time.TimeOnly), c.onExpiry()))
	}
	table.row("state", c.stateText())
	if state := c.Snapshot.State; state == earmark.StateHeld || state == earmark.StateReview {
		table.row("set aside", c.Request.Amounts.String()+" on "+code(c.Request.Scopes...))
	}
	if decision := c.Snapshot.Decision; decision != nil {
		for _, v := range decision.Violations {
			table.row("does not fit", fmt.Sprintf("%s: %s of %s %s available, %s asked for", code(v.Scope), earmark.FormatAmount(v.Available),
				earmark.FormatAmount(v.Limit), v.Unit, earmark.FormatAmount(v.Requested)))
		}
	}
	table.row("waiting", c.waitingText())
	if c.Failing != "" {
		table.row("last error", escape(c.Failure, maxErrorShown))
	}
	// What to do comes first: Temporal UI shows some eight lines, and the rest after scrolling.
	return "### " + c.title() + "\n\n" + c.nextSteps() + "\n" + table.String()
}

func (c Card) title() string {
	switch {
	case c.Failing != "":
		return "The ledger does not answer: " + c.Failing
	case c.Snapshot.State == earmark.StateHeld:
		return "Held"
	case c.Snapshot.State == earmark.StateReview:
		return "In review: somebody has to decide"
	case c.Snapshot.State != "":
		return "Settled: " + string(c.Snapshot.State)
	}
	return "Not reserved"
}

func (c Card) stateText() string {
	switch c.Snapshot.State {
	case earmark.StateHeld:
		return "**held**: budget is set aside, the lease runs"
	case earmark.StateReview:
		return "**review**: the lease ran out, and the budget stays set aside"
	case earmark.StateCommitted:
		return "**committed**: usage is charged"
	case earmark.StateReleased:
		return "**released**: the caller says that nothing was spent"
	case earmark.StateExpired:
		return "**expired**: given back; usage that turns up is still charged"
	}
	if c.Snapshot.Outcome == "" {
		return "the ledger is being asked"
	}
	if c.Snapshot.Outcome == earmark.OutcomeInvalid {
		return "nothing is set aside: the input breaks a rule: " + escape(c.Snapshot.Subject, maxErrorShown)
	}
	return "nothing is set aside (" + string(c.Snapshot.Outcome) + ")"
}

func (c Card) waitingText() string {
	if n := c.Pending; n > 0 {
		return fmt.Sprintf("%d messages are not applied yet", n)
	}
	return ""
}

// used stands where somebody has to put what was used.
func used(string) string { return "<used>" }

// nextSteps say what to do.
func (c Card) nextSteps() string {
	id := c.ID
	switch {
	case c.Failing != "":
		return "It is tried until the ledger answers; *Pending Activities* has the latest error. This settles it past the workflow, and is safe:\n\n" +
			block(releaseCommand(id))
	case c.Snapshot.State == earmark.StateHeld:
		return "Nothing has to be done: the caller settles it, or the lease runs out.\n"
	case c.Snapshot.State == earmark.StateReview:
		return "Charge what was used, or give it back:\n\n" + block(commitCommand(id, c.Request.Amounts, used), releaseCommand(id))
	case c.Snapshot.State != "":
		return "Nothing has to be done. What happened is in the journal:\n\n" + block("entries --reservation "+id)
	}
	return "Nothing has to be done.\n"
}

// table is a Markdown table of two columns.
type table struct{ rows strings.Builder }

// row adds a line; one that says nothing is left out. value is Markdown.
func (t *table) row(label, value string) {
	if value != "" {
		t.rows.WriteString("| " + label + " | " + value + " |\n") // workflowcheck does not trust fmt.Fprintf
	}
}

func (t *table) String() string { return "| | |\n| --- | --- |\n" + t.rows.String() }

// code shows text that cannot hold Markdown, such as scopes.
func code(words ...string) string { return "`" + strings.Join(words, "`, `") + "`" }

// metadataText are the caller's own notes, which may hold anything.
func metadataText(metadata earmark.Metadata) string {
	var words []string
	shown := 0
	for _, key := range metadata.Keys() {
		if shown += len(key) + len(metadata[key]); shown > maxMetadataShown {
			words = append(words, "…")
			break
		}
		words = append(words, escape(key+"="+metadata[key], len(key)+1+len(metadata[key])))
	}
	return strings.Join(words, ", ")
}

// lines are what separates the lines and columns of an error's text.
var lines = strings.NewReplacer("\r", "", "\n", " ", "\t", " ")

// escape makes text of others plain in Markdown, on one line and visible: a punctuation
// mark might be markup, HTML, a link or the end of a table's cell. Those that cannot be
// stay as they are: Temporal UI would show their backslashes.
func escape(text string, maxBytes int) string {
	if len(text) > maxBytes {
		text = strings.ToValidUTF8(text[:maxBytes], "") + "…"
	}
	var escaped strings.Builder
	for _, char := range earmark.VisibleText(lines.Replace(text)) {
		if strings.ContainsRune("!#$&()*+-.:<>[\\]^_`{|}~", char) {
			escaped.WriteByte('\\')
		}
		escaped.WriteRune(char)
	}
	return escaped.String()
}

// Stamp is a moment in UTC, to the second.
func Stamp(at time.Time) string { return at.UTC().Format("2006-01-02 15:04:05 UTC") }

func untilText(d time.Duration) string {
	if d < 0 {
		return span(-d) + " ago"
	}
	return "in " + span(d)
}

// span is a duration without what does not matter in it.
func span(d time.Duration) string {
	words := d.Round(time.Second).String()
	for _, zero := range []string{"m0s", "h0m"} {
		if strings.HasSuffix(words, zero) {
			words = words[:len(words)-len("0s")]
		}
	}
	return words
}
