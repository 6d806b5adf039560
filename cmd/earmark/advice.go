package main

import (
	"cmp"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/earmark-dev/earmark"
)

// callError is an error of a call, explained, with what to do next.
type callError struct {
	code int // exit code
	text string
	err  error
}

func (e *callError) Error() string { return e.text }
func (e *callError) Unwrap() error { return e.err }

// errDenied ends a command whose request was denied and that has shown the denial.
var errDenied = &callError{code: exitDenied}

// explain turns an error of the API into text, advice and an exit code. With --json it
// prints the server's problem unchanged.
func (s *session) explain(err error) error {
	e, ok := asAPIError(err)
	if !ok {
		return err
	}
	if document := s.last.problem(); s.asJSON && document != nil {
		s.answer = document
		if printErr := s.print(func(*sheet) {}); printErr != nil {
			return errors.Join(err, printErr)
		}
	}
	p := &sheet{screen: screenOf(s.cmd.ErrOrStderr()), now: s.last.now()}
	p.line("%s", s.headline(e))
	s.advise(p, e)
	return &callError{code: exitCodes(e), text: strings.TrimRight(p.text.String(), "\n"), err: err}
}

// codeFailed is the code of an error for which the API has none.
const codeFailed earmark.Code = "failed"

// printProblem prints an error that no server has sent, for example because none answers,
// in the form of a server's problem.
func printProblem(out io.Writer, err error) {
	problem := struct {
		Code   earmark.Code `json:"code"`
		Detail string       `json:"detail"`
		Field  string       `json:"field,omitempty"`
	}{codeFailed, err.Error(), ""}
	var wrong usageError
	if e, ok := asAPIError(err); ok {
		problem.Code, problem.Detail, problem.Field = e.Code, e.Message, e.Field
	} else if errors.As(err, &wrong) {
		problem.Code = earmark.CodeInvalidRequest
	}
	if document, err := json.MarshalIndent(problem, "", "  "); err == nil { // it cannot fail
		fmt.Fprintf(out, "%s\n", document)
	}
}

// exitCodes returns the exit code of an error of the API.
func exitCodes(e *earmark.Error) int {
	switch e.Code {
	case earmark.CodeInvalidRequest:
		return exitUsage
	case earmark.CodeBudgetExceeded:
		return exitDenied
	case earmark.CodeNotFound, earmark.CodeNoBudget, earmark.CodeUnknownModel:
		return exitNotFound
	case earmark.CodeUnavailable, earmark.CodeAdmissionUnknown:
		return exitUnknown
	default:
		return exitFailed
	}
}

// headline returns the error in one line. It leaves out what the advice below it says
// better.
func (s *session) headline(e *earmark.Error) string {
	switch e.Code {
	case earmark.CodeBudgetExceeded:
		if len(e.Violations) > 0 {
			return clean(fmt.Sprintf("denied: %s on %s do not fit", s.subject.amounts, strings.Join(displayScopes(s.subject.scopes), ", ")))
		}
	case earmark.CodeNoBudget, earmark.CodeUnitNotBudgeted:
		what, _, _ := strings.Cut(e.Message, "; ")
		return clean(what)
	case earmark.CodeIdempotencyMismatch, earmark.CodeAlreadySettled, earmark.CodeOverageRejected, earmark.CodeNotCharged:
		what, _, _ := strings.Cut(inFlagWords(s.cmd, e), "; ")
		return what
	default:
	}
	return inFlagWords(s.cmd, e)
}

// inFlagWords returns the error's message, with the field named as on the command line of cmd.
func inFlagWords(cmd *cobra.Command, e *earmark.Error) string {
	name, rest, _ := strings.Cut(e.Field, ".")
	name, _, _ = strings.Cut(name, "[")
	flag, known := map[string]string{
		"scopes": "SCOPE", "scope": "SCOPE", "unit": "UNIT", "amounts": "--amount", "usage": "UNIT=N", "ttl_seconds": "--ttl",
		"on_expiry": "--on-expiry", "metadata": "--metadata", "Idempotency-Key": "--key", "soft_ceiling": "--soft-ceiling",
		"limit": "LIMIT", "enforcement": "--enforcement", "overage": "--overage", "allowance": "--allowance",
		"amount": "AMOUNT", "effective_at": "--from", "priority": "--priority", "reason": "--reason", "operator": "--as", "covering": "--covering",
		"name": "--name", "role": "--role", "expires_at": "--expires", "rate": "--rate", "overlap": "--overlap", "tenant": "TENANT", "model": "MODEL",
	}[name]
	switch {
	case name == "window" && rest != "":
		flag, rest = "--"+rest, ""
	case name == "rollover" && rest == "windows":
		flag, rest = "--rollover-windows", ""
	case name == "rollover" && rest == "max_total":
		flag, rest = "--rollover-total", ""
	case name == "rollover":
		flag, rest = "--rollover", ""
	case name == "expires_at" && cmd.Flags().Lookup("until") != nil: // keys have --expires
		flag = "--until"
	case !known:
		return oneLine(e.Error())
	}
	if rest != "" {
		flag += " " + rest
	}
	return oneLine(flag + ": " + e.Message)
}

// oneLine cleans a message, which may have the lines of Postgres' driver.
func oneLine(message string) string {
	return clean(strings.NewReplacer("\n\t", " ", "\n", " ").Replace(message))
}

// advise prints what to do next.
func (s *session) advise(p *sheet, e *earmark.Error) {
	switch e.Code {
	case earmark.CodeUnavailable:
		s.adviseUnavailable(p, e)
	case earmark.CodeAdmissionUnknown:
		p.line("The amounts may or may not be set aside. Ask again with the same key, which is")
		p.line("safe, or look:")
		s.sameAgain(p)
		if e.ReservationID != "" {
			p.line("  earmark show %s", e.ReservationID)
		}
	case earmark.CodeBudgetExceeded:
		denial(p, earmark.Decision{Violations: e.Violations, Retryable: e.Retryable, RetryAt: e.RetryAt})
	case earmark.CodeNoBudget, earmark.CodeUnitNotBudgeted:
		s.adviseBudget(p, e)
	case earmark.CodeBudgetExists:
		p.line("See it, and change it by its id:")
		p.line("  earmark budget list --scope %s", strings.Join(s.subject.scopes, ""))
		p.line("  earmark budget set ID --limit N")
	case earmark.CodeAlreadySettled, earmark.CodeReservationExpired, earmark.CodeOverageRejected, earmark.CodeNotCharged, earmark.CodeBelowZero:
		standing(p, e)
	case earmark.CodeIdempotencyMismatch:
		p.line("Give a new request a --key of its own, or repeat the first one exactly.")
	case earmark.CodeUnknownModel, earmark.CodeUnpriced:
		p.line("Prices are set with access to the database; `earmark price --help` says how.")
	case earmark.CodeNotFound:
		if e.Message != "" && !strings.Contains(e.Message, "with the id") {
			p.line("Is %s the address of an Earmark?", s.url)
			return
		}
		p.line("`earmark list` and `earmark budget list` show what there is.")
	case earmark.CodeRateLimited:
		p.line("Ask again in %s, or use another key.", span(max(e.RetryAfter, time.Second)))
	case earmark.CodeInternal:
		p.line("The server's log says more.")
	case earmark.CodeUnauthenticated:
		p.line("Set %s to a key, or %s to a file that holds one. A key is made with", apiKeyEnv, apiKeyFileEnv)
		p.line("access to the database: earmark key create --tenant T --role R")
	case earmark.CodeForbidden:
		if e.Field != "Host" {
			return // the headline names the role or the scope
		}
		p.line("The server answers to IP addresses, to names without a dot, and to those that it")
		p.line("was started with: earmark serve --allowed-hosts NAME")
	case earmark.CodeMethodNotAllowed, earmark.CodeUnsupportedMediaType, earmark.CodePayloadTooLarge:
		p.line("Is %s the address of an Earmark of this version (%s)?", s.url, version)
	case earmark.CodeInvalidRequest: // the headline names the flag
	}
}

func (s *session) adviseUnavailable(p *sheet, e *earmark.Error) {
	var network *net.OpError
	var name *net.DNSError
	var untrusted *tls.CertificateVerificationError
	switch {
	case s.ctx.Err() != nil:
		p.text.Reset()
		p.line("interrupted")
	case errors.As(e, &name), errors.As(e, &network) && network.Op == "dial":
		p.text.Reset()
		p.line("no server answers at %s (%s).", s.url, rootCause(e))
		p.line("Is it running? Try `make dev` in another terminal, or set %s or --url.", urlEnv)
		return
	case errors.As(e, &untrusted):
		p.text.Reset()
		p.line("the certificate of %s is not trusted (%s); nothing was sent.", s.url, rootCause(e))
		p.line("If a private authority issued it, name its certificate in %s or --ca-file.", caFileEnv)
		return
	default:
		p.line("Try again%s. What is away says:", after(e.RetryAfter))
		p.line("  earmark health --url %s", s.url)
	}
	if s.last.changes {
		p.line("Whether the call took effect is not known.")
		s.sameAgain(p)
	}
}

// sameAgain prints how to send the same request again.
func (s *session) sameAgain(p *sheet) {
	if s.subject.key == "" {
		return
	}
	p.line("  earmark %s … --key %s", cmp.Or(s.subject.verb, "reserve"), shellWord(s.subject.key))
}

// adviseBudget prints how to create the missing budget. The API's message has the scope or
// the unit in quotes.
func (s *session) adviseBudget(p *sheet, e *earmark.Error) {
	scope, unit := "SCOPE", "UNIT"
	if named := quoted(e.Message, s.subject.scopes); named != "" {
		scope = named
	} else if len(s.subject.scopes) == 1 {
		scope = s.subject.scopes[0]
	}
	units := s.subject.amounts.Units()
	if named := quoted(e.Message, units); named != "" {
		unit = named
	} else if len(units) > 0 {
		unit = units[0]
	}
	if s.subject.requireBudget {
		p.line("Create one:")
	} else {
		p.line("Create one, on this scope or on one above it:")
	}
	p.line("  earmark budget create %s %s LIMIT", scope, unit)
}

func quoted(message string, words []string) string {
	i := slices.IndexFunc(words, func(word string) bool { return strings.Contains(message, strconv.Quote(word)) })
	if i < 0 {
		return ""
	}
	return words[i]
}

// denial prints the budgets that a request does not fit into, and when it may fit.
func denial(p *sheet, decision earmark.Decision) {
	for _, v := range decision.Violations {
		over := ""
		if v.Available < 0 {
			over = ", " + earmark.FormatAmount(-v.Available) + " over the limit"
		}
		p.line("  %s: %s of %s %s available%s (%s reserved, %s committed)", p.paint(clean(earmark.DisplayScope(v.Scope)), bold),
			p.paint(earmark.FormatAmount(max(0, v.Available)), red), earmark.FormatAmount(v.Limit), clean(v.Unit), over,
			earmark.FormatAmount(v.Reserved), earmark.FormatAmount(v.Committed))
	}
	switch {
	case decision.RetryAt != nil && decision.HoldsAlone():
		p.line("It would fit without the open holds. Try again when some have settled,")
		p.line("at the latest %s:", p.moment(*decision.RetryAt, time.Local))
		p.line("  earmark list --state held --scope %s", clean(decision.Violations[0].Scope))
		return
	case decision.RetryAt != nil:
		p.line("Try again %s, or raise the limit:", p.moment(*decision.RetryAt, time.Local))
	case decision.HoldsAlone():
		p.line("It would fit without the reservations in review. Settle them, or raise the limit:")
		p.line("  earmark list --state review --scope %s", clean(decision.Violations[0].Scope))
	case len(decision.Violations) > 0:
		p.line("Waiting does not help. Ask for less, or raise the limit:")
	}
	for _, v := range decision.Violations {
		p.line("  earmark budget set %s --limit N", clean(v.BudgetID))
	}
}

// standing prints a reservation that cannot change any more.
func standing(p *sheet, e *earmark.Error) {
	r := e.Reservation
	if r == nil {
		if e.ReservationID != "" {
			p.line("  earmark show %s", e.ReservationID)
		}
		return
	}
	p.line("Its state:")
	for _, line := range strings.Split(strings.TrimRight(summaryText(p, r), "\n"), "\n") {
		p.line("  %s", line)
	}
	switch {
	case e.Code == earmark.CodeOverageRejected:
		p.line("It stays set aside, and waits for an operator once it has expired, who charges")
		p.line("it in full or gives it back:")
		p.line("  earmark commit %s %s", r.ID, amountArguments(r.RejectedUsage))
		p.line("  earmark release %s --reason WHY", r.ID)
	case r.State == earmark.StateReleased:
		p.line("Usage that was spent nevertheless is charged by itself:")
		p.line("  earmark usage %s%s --key KEY", strings.Join(r.Scopes, " "), blanks(r.Amounts, " --amount "))
	case r.Estimated:
		p.line("The real usage corrects the estimate:")
		p.line("  earmark commit %s%s", r.ID, blanks(r.Amounts, " "))
	case e.Code == earmark.CodeNotCharged && r.Open():
		p.line("Charge what was used, or give it back:")
		p.line("  earmark commit %s%s", r.ID, blanks(r.Amounts, " "))
		p.line("  earmark release %s --reason WHY", r.ID)
	case r.State == earmark.StateExpired, r.State == earmark.StateReview:
		p.line("Usage that was spent is still charged:")
		p.line("  earmark commit %s%s", r.ID, blanks(r.Amounts, " "))
	}
}

func summaryText(p *sheet, r *earmark.Reservation) string {
	inner := &sheet{screen: p.screen, now: p.now}
	summary(inner, r)
	return inner.text.String()
}

// amountArguments returns amounts as command-line arguments.
func amountArguments(amounts earmark.Amounts) string {
	if len(amounts) == 0 {
		return "UNIT=N"
	}
	words := make([]string, 0, len(amounts))
	for _, unit := range amounts.Units() {
		words = append(words, fmt.Sprintf("%s=%d", unit, amounts[unit]))
	}
	return strings.Join(words, " ")
}

// blanks returns the units of amounts with placeholders for the numbers.
func blanks(amounts earmark.Amounts, before string) string {
	var words strings.Builder
	for _, unit := range amounts.Units() {
		words.WriteString(before + unit + "=N")
	}
	return words.String()
}

// shellWord quotes a word for a shell if necessary.
func shellWord(word string) string {
	safe := func(char rune) bool {
		return char >= 'a' && char <= 'z' || char >= 'A' && char <= 'Z' || char >= '0' && char <= '9' || strings.ContainsRune("-_./:=@", char)
	}
	if word != "" && !strings.ContainsFunc(word, func(char rune) bool { return !safe(char) }) {
		return word
	}
	return "'" + strings.ReplaceAll(word, "'", `'\''`) + "'"
}

func after(d time.Duration) string {
	if d <= 0 {
		return ""
	}
	return " in " + span(d)
}

// rootCause returns the text of the innermost error: connection refused, no such host.
func rootCause(err error) string {
	var name *net.DNSError
	if errors.As(err, &name) {
		return name.Err
	}
	for {
		inner := errors.Unwrap(err)
		if inner == nil {
			return err.Error()
		}
		err = inner
	}
}
