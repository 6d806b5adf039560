// Package card writes the texts that Temporal UI shows for a reservation's workflow: a
// summary and details at its start, and a card with its current state. It is part of the
// workflow's code, so it must be deterministic.
package card

import (
	"cmp"
	"fmt"
	"strings"
	"time"

	"github.com/earmark-dev/earmark"
	"github.com/earmark-dev/earmark/activities"
)

// Limits of the texts. Temporal refuses a summary over 400 bytes and details over 20,000.
const (
	maxSummaryBytes  = 200
	maxMetadataShown = 1000 // bytes of metadata, in details that every history contains
	maxErrorShown    = 500
)

// Summary returns the one line that Temporal UI shows for a reservation, such as
// "acme/ml/u1 · 1,200 tokens".
func Summary(request earmark.ReservationRequest) string {
	summary := strings.Join(request.Scopes, ", ") + " · " + request.Amounts.String()
	if len(summary) > maxSummaryBytes {
		summary = fmt.Sprintf("%s and %d more scopes · %d units", request.Scopes[0][:min(len(request.Scopes[0]), 100)], len(request.Scopes)-1, len(request.Amounts))
	}
	return summary
}

// Details returns Markdown about the request and the possible commands. Temporal UI shows
// it even if no worker runs. It never changes.
func Details(id string, request earmark.ReservationRequest) string {
	var table table
	table.row("scopes", code(request.Scopes...))
	table.row("asked for", request.Amounts.String())
	if request.TTLSeconds > 0 { // the TTL of an adopted reservation is not known
		table.row("lease", span(request.TTL())+" from admission, unless it was extended")
	}
	table.row("then", string(request.OnExpiry))
	table.row("metadata", metadataText(request.Metadata))
	return table.String() + "\nTo see its state, and to settle it in the caller's place, whatever its workflow does:\n\n" +
		block("show "+id, commitCommand(id, request.Amounts, used), releaseCommand(id))
}

// Card is the current state of a reservation's workflow.
type Card struct {
	ID       string
	Request  earmark.ReservationRequest
	Snapshot activities.Snapshot
	// ExpiresAt is when the lease ends by the workflow's clock; zero if that is not known.
	ExpiresAt time.Time
	// Failing names the call that the ledger does not answer, and Failure is its last
	// error; both are empty while the ledger answers.
	Failing, Failure string
	// Pending counts messages that have arrived and are not yet applied.
	Pending int
}

// onExpiry returns the policy from the ledger, which a refused commit changes, or else that
// of the request.
func (c Card) onExpiry() earmark.OnExpiry { return cmp.Or(c.Snapshot.OnExpiry, c.Request.OnExpiry) }

// Markdown returns what to do and the current state, as of now.
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
	// The next steps come first: Temporal UI shows about eight lines without scrolling.
	return "### " + c.title() + "\n\n" + c.nextSteps() + "\n" + table.String()
}

func (c Card) title() string {
	switch {
	case c.Failing != "":
		return "The ledger does not answer: " + c.Failing
	case c.Snapshot.State == earmark.StateHeld:
		return "Held"
	case c.Snapshot.State == earmark.StateReview:
		return "In review: waits for a decision"
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
		return "**expired**: given back; usage that arrives later is still charged"
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

// used returns the placeholder for an amount that a person must fill in.
func used(string) string { return "<used>" }

// nextSteps returns what to do.
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

// table builds a Markdown table of two columns.
type table struct{ rows strings.Builder }

// row adds a line, unless value is empty. value is Markdown.
func (t *table) row(label, value string) {
	if value != "" {
		t.rows.WriteString("| " + label + " | " + value + " |\n") // workflowcheck does not trust fmt.Fprintf
	}
}

func (t *table) String() string { return "| | |\n| --- | --- |\n" + t.rows.String() }

// code formats text without Markdown in it, such as scopes.
func code(words ...string) string { return "`" + strings.Join(words, "`, `") + "`" }

// metadataText returns the caller's own notes, which may contain anything.
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

// lines replaces line breaks and tabs in an error's text.
var lines = strings.NewReplacer("\r", "", "\n", " ", "\t", " ")

// escape makes foreign text plain in Markdown, on one line and visible: a punctuation mark
// could be markup, HTML, a link or the end of a table's cell. It leaves other characters
// alone, because Temporal UI would show their backslashes.
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

// Stamp returns a moment in UTC, to the second.
func Stamp(at time.Time) string { return at.UTC().Format("2006-01-02 15:04:05 UTC") }

func untilText(d time.Duration) string {
	if d < 0 {
		return span(-d) + " ago"
	}
	return "in " + span(d)
}

// span returns a duration without insignificant parts.
func span(d time.Duration) string {
	words := d.Round(time.Second).String()
	for _, zero := range []string{"m0s", "h0m"} {
		if strings.HasSuffix(words, zero) {
			words = words[:len(words)-len("0s")]
		}
	}
	return words
}
