package workflows

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"go.temporal.io/sdk/workflow"

	"github.com/earmark-dev/earmark"
)

// Limits of what people are shown. Temporal refuses a summary over 400 bytes and
// details over 20,000.
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
	var card card
	card.row("scopes", code(request.Scopes...))
	card.row("asked for", request.Amounts.String())
	if request.TTLSeconds > 0 { // an adopted reservation's is not known
		card.row("lease", span(request.TTL())+" from admission, unless it was extended")
	}
	card.row("then", string(request.OnExpiry))
	card.row("metadata", metadataWords(request.Metadata))
	return card.String() + "\nWhere it stands, and what settles it in the caller's place, whatever its workflow does:\n\n" +
		commands("show "+id, commitCommand(id, request), releaseCommand(id))
}

// show writes the current details: a card that says where the reservation stands
// and what to do. It costs no history.
func (r *reservation) show(ctx workflow.Context) {
	workflow.SetCurrentDetails(ctx, r.card(workflow.Now(ctx).UTC()))
}

func (r *reservation) card(now time.Time) string {
	var card card
	if r.standing.State == earmark.StateHeld && !r.expiresAt.IsZero() {
		card.row("expires", fmt.Sprintf("%s (%s, as of %s), then %s", stamp(r.expiresAt), untilWords(r.expiresAt.Sub(now)), now.Format(time.TimeOnly), r.Admission.Request.OnExpiry))
	}
	card.row("state", r.stateWords())
	if r.open() {
		card.row("set aside", r.Admission.Request.Amounts.String()+" on "+code(r.Admission.Request.Scopes...))
	}
	if decision := r.standing.Decision; decision != nil {
		for _, v := range decision.Violations {
			card.row("does not fit", fmt.Sprintf("%s: %s of %s %s available, %s asked for", code(v.Scope), earmark.FormatAmount(v.Available),
				earmark.FormatAmount(v.Limit), v.Unit, earmark.FormatAmount(v.Requested)))
		}
	}
	card.row("waiting", r.waitingWords())
	if r.failing != "" {
		card.row("last error", escape(r.failure, maxErrorShown))
	}
	// What to do comes first: Temporal UI shows some eight lines, and the rest after scrolling.
	return "### " + r.stateTitle() + "\n\n" + r.nextWords() + "\n" + card.String()
}

func (r *reservation) stateTitle() string {
	switch {
	case r.failing != "":
		return "The ledger does not answer: " + r.failing
	case r.standing.State == earmark.StateHeld:
		return "Held"
	case r.standing.State == earmark.StateReview:
		return "In review: somebody has to decide"
	case r.standing.State != "":
		return "Settled: " + string(r.standing.State)
	}
	return "Not reserved"
}

func (r *reservation) stateWords() string {
	switch r.standing.State {
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
	if r.standing.Outcome == "" {
		return "the ledger is being asked"
	}
	return "nothing is set aside (" + string(r.standing.Outcome) + ")"
}

func (r *reservation) waitingWords() string {
	if n := len(r.inbox.messages); n > 0 {
		return fmt.Sprintf("%d messages are not applied yet", n)
	}
	return ""
}

// nextWords say what to do.
func (r *reservation) nextWords() string {
	id := r.Admission.ID
	switch {
	case r.failing != "":
		return "It is tried until the ledger answers; *Pending Activities* has the latest error. This settles it past the workflow, and is safe:\n\n" +
			commands(releaseCommand(id))
	case r.standing.State == earmark.StateHeld:
		return "Nothing has to be done: the caller settles it, or the lease runs out.\n"
	case r.standing.State == earmark.StateReview:
		return "Charge what was used, or give it back:\n\n" + commands(commitCommand(id, r.Admission.Request), releaseCommand(id))
	case r.standing.State != "":
		return "Nothing has to be done. What happened is in the journal:\n\n" + commands("entries --reservation "+id)
	}
	return "Nothing has to be done.\n"
}

// leaseUntil notes when the lease ends, as far as this workflow's clock tells, and
// is the timer's summary.
func (r *reservation) leaseUntil(ctx workflow.Context, remaining time.Duration) string {
	r.expiresAt = workflow.Now(ctx).Add(remaining).UTC()
	return "lease until " + stamp(r.expiresAt) + ", then " + string(r.Admission.Request.OnExpiry)
}

// fails shows that a call does not get through; an empty what, that it did.
func (r *reservation) fails(ctx workflow.Context, what string, err error) {
	if what == "" && r.failing == "" {
		return
	}
	r.failing, r.failure = what, ""
	if err != nil {
		r.failure = err.Error()
	}
	r.show(ctx)
}

// card is a Markdown table of two columns.
type card struct{ rows strings.Builder }

// row adds a line; one that says nothing is left out. value is Markdown.
func (c *card) row(label, value string) {
	if value != "" {
		c.rows.WriteString("| " + label + " | " + value + " |\n") // workflowcheck does not trust fmt.Fprintf
	}
}

func (c *card) String() string { return "| | |\n| --- | --- |\n" + c.rows.String() }

func commitCommand(id string, request earmark.ReservationRequest) string {
	usage := ""
	for _, unit := range request.Amounts.Units() {
		usage += " " + unit + "=N"
	}
	return "commit " + id + usage + ` --reason "WHY"`
}

func releaseCommand(id string) string { return "release " + id + ` --reason "WHY"` }

func commands(commands ...string) string {
	return "```\nearmark " + strings.Join(commands, "\nearmark ") + "\n```\n"
}

// code shows words that cannot hold Markdown, such as scopes.
func code(words ...string) string { return "`" + strings.Join(words, "`, `") + "`" }

// metadataWords are the caller's own notes, which may hold anything.
func metadataWords(metadata earmark.Metadata) string {
	var words []string
	shown := 0
	for _, key := range slices.Sorted(maps.Keys(metadata)) {
		if shown += len(key) + len(metadata[key]); shown > maxMetadataShown {
			words = append(words, "…")
			break
		}
		words = append(words, escape(key+"="+metadata[key], len(key)+1+len(metadata[key])))
	}
	return strings.Join(words, ", ")
}

// escape makes text of others plain in Markdown, on one line: a punctuation mark
// might be markup, HTML, a link or the end of a table's cell. Those that cannot be
// stay as they are: Temporal UI would show their backslashes.
func escape(text string, maxBytes int) string {
	if len(text) > maxBytes {
		text = strings.ToValidUTF8(text[:maxBytes], "") + "…"
	}
	var escaped strings.Builder
	for _, char := range text {
		switch {
		case char < ' ', char == 0x7f:
			escaped.WriteByte(' ')
		case strings.ContainsRune("!#$&()*+-.:<>[\\]^_`{|}~", char):
			escaped.WriteByte('\\')
			escaped.WriteRune(char)
		default:
			escaped.WriteRune(char)
		}
	}
	return escaped.String()
}

func stamp(at time.Time) string { return at.UTC().Format("2006-01-02 15:04:05 UTC") }

func untilWords(d time.Duration) string {
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
