//go:build unix

package chaos_test

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/earmark-dev/earmark"
)

// check compares the ledger with the driver's journal and with the promises, and
// lists what does not hold, each with its evidence. It runs when nothing changes any
// more.
func (d *driver) check(c *cluster) []string {
	problems := d.children(c)
	rows := readRows(c.t, c.Pool())
	known := map[string]bool{}
	for _, l := range d.lives {
		known[l.ID] = true
		for _, complaint := range d.judge(l, rows[l.ID]) {
			problems = append(problems, fmt.Sprintf("%s: %s\n  journal: %s\n  ledger:  %s", l.ID, complaint, l, rows[l.ID].evidence()))
		}
	}
	for id, r := range rows {
		if !known[id] {
			problems = append(problems, fmt.Sprintf("%s: nobody asked for it\n  ledger:  %s", id, r.evidence()))
		}
	}
	problems = append(problems, d.overspent(readEntries(c.t, c.Pool()))...)
	problems = append(problems, d.overspentByJournal()...)
	problems = append(problems, d.misgranted(c)...)
	problems = append(problems, d.misrolled(c)...)
	problems = append(problems, c.unguarded(rows)...)
	problems = append(problems, c.late(rows)...)
	for _, took := range d.recoveries {
		if took > recoveryLimit() {
			problems = append(problems, fmt.Sprintf("%.1f s passed until requests were admitted after everything was killed and restarted; %s are allowed", took.Seconds(), recoveryLimit()))
		}
	}
	return problems
}

// recoveryLimit is how soon admission works again after everything was killed. A
// short run shares its machine with other tests, and is given twice that.
func recoveryLimit() time.Duration {
	if isShort() {
		return 30 * time.Second
	}
	return 15 * time.Second
}

var (
	commits  = []string{verbCommit, verbSignal}
	releases = []string{verbRelease}
)

// judge compares one request with its row.
func (d *driver) judge(l *life, r *row) []string {
	var found []string
	complain := func(format string, args ...any) { found = append(found, fmt.Sprintf(format, args...)) }
	for _, a := range l.Attempts {
		if complaint := d.strange(l, a); complaint != "" {
			complain("%s", complaint)
		}
	}
	if l.Script == "charge" {
		return append(found, judgeCharge(l, r)...)
	}
	switch {
	case r == nil && (l.admitted() || l.some(commits, done, accepted)):
		complain("it was admitted, and is not there")
	case r == nil:
	case !l.admitted() && !l.some([]string{verbReserve}, unknown):
		complain("it was denied, and is there")
	case !maps.Equal(r.Amounts, l.Request.Amounts):
		complain("another amount is reserved than was asked for")
	default:
		found = append(found, d.judgeState(l, r)...)
		found = append(found, d.judgeCharges(r)...)
	}
	return found
}

// strange says what is wrong with an answer by itself.
func (d *driver) strange(l *life, a attempt) string {
	if a.Outcome == bug {
		return "an answer says that it is a bug"
	}
	if a.Outcome != refused {
		return ""
	}
	allowed := map[string][]earmark.Code{
		verbReserve: {earmark.CodeBudgetExceeded, earmark.CodeReservationExpired, earmark.CodeAlreadySettled},
		verbExtend:  {earmark.CodeReservationExpired, earmark.CodeAlreadySettled},
		verbRelease: {earmark.CodeAlreadySettled},
		verbSignal:  {earmark.CodeNotFound},
	}[a.Verb]
	if a.Verb == verbCommit {
		if len(l.all(releases, done, accepted, unknown, refused)) > 0 {
			allowed = append(allowed, earmark.CodeAlreadySettled)
		}
		if d.tenant(l.Tenant).budgets.refusesOverage(l.Request, a.Usage) {
			allowed = append(allowed, earmark.CodeOverageRejected)
		}
	}
	if !slices.Contains(allowed, a.Code) {
		return fmt.Sprintf("%s was refused with %s", a.Verb, a.Code)
	}
	return ""
}

func judgeCharge(l *life, r *row) []string {
	charged := l.some([]string{verbCharge}, done)
	switch {
	case r == nil && charged:
		return []string{"usage was charged, and is not there"}
	case r == nil:
	case !charged && !l.some([]string{verbCharge}, unknown):
		return []string{"usage was refused, and is there"}
	case r.State != earmark.StateCommitted || r.Late || r.Estimated || r.ExpiresAt != nil || !maps.Equal(r.Usage, l.Request.Amounts):
		return []string{"other usage is charged than was asked for"}
	default:
		return r.chargedOnce("charge", r.Usage)
	}
	return nil
}

// judgeState compares the state with the driver's calls and their answers.
func (d *driver) judgeState(l *life, r *row) []string {
	var found []string
	complain := func(format string, args ...any) { found = append(found, fmt.Sprintf(format, args...)) }
	real := r.State == earmark.StateCommitted && !r.Estimated
	for _, a := range l.all(commits, done) {
		if !real || !maps.Equal(r.Usage, a.Usage) {
			complain("a commit of %v was answered as done, and is lost", a.Usage)
		}
	}
	for _, a := range l.all(commits, accepted) {
		kept := real && maps.Equal(r.Usage, a.Usage) ||
			r.State == earmark.StateReleased && l.some(releases, done, accepted, unknown) ||
			r.State == earmark.StateReview && maps.Equal(r.RejectedUsage, a.Usage)
		if !kept {
			complain("a commit of %v was accepted, and is lost", a.Usage)
		}
	}
	for _, a := range l.all(commits, refused) {
		waits := r.State == earmark.StateReview && maps.Equal(r.RejectedUsage, a.Usage)
		// A later attempt, in review, is a decision to charge. Only an attempt that was not refused may have been charged.
		decided := real && maps.Equal(r.RejectedUsage, a.Usage) && l.some(commits, done, accepted, unknown)
		if a.Code == earmark.CodeOverageRejected && !waits && !decided {
			complain("usage was refused, and does not wait for review")
		}
	}
	for _, a := range l.all(releases, done) {
		if a.State == earmark.StateReleased && r.State != earmark.StateReleased {
			complain("a release was answered as done, and does not stand")
		}
	}
	corrects := []string{verbCorrect}
	switch {
	case r.Correction == nil && l.some(corrects, done):
		complain("a correction was answered as done, and is lost")
	case r.Correction != nil && (!l.some(corrects, done, unknown) || !maps.Equal(r.Correction, correctBy)):
		complain("it is corrected by %v, and nobody asked for that", r.Correction)
	}
	switch r.State {
	case earmark.StateCommitted:
		asked := slices.ContainsFunc(l.all(commits, done, accepted, unknown), func(a attempt) bool { return maps.Equal(a.Usage, r.Usage) })
		if real && !asked {
			complain("usage is charged that nobody asked for")
		}
		if r.Estimated && (l.Request.OnExpiry != earmark.OnExpiryCommit || !maps.Equal(r.Usage, r.Amounts)) {
			complain("an estimate is charged that the policy does not allow")
		}
	case earmark.StateReleased:
		if !l.some(releases, done, accepted, unknown) {
			complain("it is released, and nobody asked for that")
		}
	case earmark.StateExpired:
		if l.Request.OnExpiry != earmark.OnExpiryRelease {
			complain("it is given back, and the policy is %s", l.Request.OnExpiry)
		}
	case earmark.StateReview:
		if l.Request.OnExpiry != earmark.OnExpiryReview && r.RejectedUsage == nil {
			complain("it waits for review, and the policy is %s", l.Request.OnExpiry)
		}
	case earmark.StateHeld:
		complain("it is held, and leaked")
	}
	return found
}

// judgeCharges checks that what is charged is charged once, in each budget.
func (d *driver) judgeCharges(r *row) []string {
	switch {
	case r.State != earmark.StateCommitted:
		return r.chargedOnce("commit", nil)
	case r.Estimated:
		return r.chargedOnce("expire", r.charged())
	case r.Shortfall == nil:
		return r.chargedOnce("commit", r.charged())
	}
	charged := r.charged()
	for _, s := range r.shares {
		fits := d.budget(s.BudgetID).Overage == earmark.OverageAllowIfAvailable
		if s.Committed != charged[s.Unit] && (!fits || s.Committed < r.Amounts[s.Unit] || s.Committed+r.Shortfall[s.Unit] < charged[s.Unit]) {
			return []string{"less is charged than the policy allows"}
		}
	}
	return r.entriesOnce("commit", true)
}

// chargedOnce checks that each budget has charged the usage by one entry of a kind;
// nil usage: nothing.
func (r *row) chargedOnce(kind string, usage earmark.Amounts) []string {
	for _, s := range r.shares {
		if s.Committed != usage[s.Unit] {
			return []string{fmt.Sprintf("%d %s are charged to %s instead of %d", s.Committed, s.Unit, s.BudgetID, usage[s.Unit])}
		}
	}
	return r.entriesOnce(kind, usage != nil)
}

func (r *row) entriesOnce(kind string, once bool) []string {
	for _, s := range r.shares {
		var reserved, committed int64
		var count int
		for _, e := range r.entries {
			if e.BudgetID == nil || *e.BudgetID != s.BudgetID {
				continue
			}
			reserved += e.ReservedDelta
			committed += e.CommittedDelta
			if e.Kind == kind {
				count++
			}
		}
		open := r.State == earmark.StateHeld || r.State == earmark.StateReview
		switch {
		case committed != s.Committed:
			return []string{fmt.Sprintf("the entries of %s charge %d, its share is %d", s.BudgetID, committed, s.Committed)}
		case open && reserved != s.Reserved || !open && reserved != 0:
			return []string{fmt.Sprintf("the entries of %s still reserve %d", s.BudgetID, reserved)}
		case once && count != 1:
			return []string{fmt.Sprintf("there are %d entries of kind %s in %s", count, kind, s.BudgetID)}
		}
	}
	return nil
}

// evidence shows a row and its entries, compactly.
func (r *row) evidence() string {
	if r == nil {
		return "no row"
	}
	text := fmt.Sprintf("%s amounts %v usage %v rejected %v on_expiry %s late %t estimated %t expires %s settled %s reason %q",
		r.State, r.Amounts, r.Usage, r.RejectedUsage, r.OnExpiry, r.Late, r.Estimated, clock(r.ExpiresAt), clock(r.SettledAt), r.Reason)
	for _, e := range r.entries {
		budget := ""
		if e.BudgetID != nil {
			budget = strings.TrimPrefix(*e.BudgetID, "bud_")
		}
		text += fmt.Sprintf("\n    %s %s %.8s %+d %+d by %s %q", clock(&e.CreatedAt), e.Kind, budget, e.ReservedDelta, e.CommittedDelta, e.Actor, e.Reason)
	}
	return text
}

func clock(t *time.Time) string {
	if t == nil {
		return "never"
	}
	return t.UTC().Format("15:04:05.000")
}
