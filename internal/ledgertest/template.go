package ledgertest

import (
	"crypto/sha256"
	"encoding/base32"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/earmark-dev/earmark"
)

// revision is what a template's children get, from one change of it to the next.
type revision struct {
	settings   earmark.Budget
	nextWindow bool
	at         time.Time
}

// templateScope returns the scope of the templates that give scope a budget.
func templateScope(scope string) string { return scope[:strings.LastIndex(scope, "/")+1] + "*" }

func (b *budget) sameLength(other *budget) bool {
	return b.tenant == other.tenant && b.Unit == other.Unit && b.Window.Period == other.Window.Period &&
		max(b.Window.Every, 1) == max(other.Window.Every, 1) && b.Window.RollingSeconds == other.Window.RollingSeconds
}

// revise keeps the settings of a template as a new revision.
func (l *Ledger) revise(b *budget, nextWindow bool) {
	b.revisions = append(b.revisions, revision{settings: b.Budget, nextWindow: nextWindow, at: l.now()})
}

// set gives b the settings of a template, or others.
func (b *budget) set(settings earmark.Budget) {
	b.Limit, b.Enforcement, b.SoftCeiling = settings.Limit, settings.Enforcement, settings.SoftCeiling
	b.Overage, b.Allowance, b.Thresholds, b.Rollover = settings.Overage, settings.Allowance, settings.Thresholds, settings.Rollover
}

// take sets b's settings, and moves its thresholds with them.
func (l *Ledger) take(b *budget, settings earmark.Budget) {
	before := b.Budget
	b.set(settings)
	b.beginRollover(l.now())
	l.moveThresholds(b, before)
}

// followed returns a budget with what its template has changed by a moment.
func (l *Ledger) followed(b *budget, at time.Time) *budget {
	if !b.FollowsTemplate {
		return b
	}
	revisions := l.budgets[b.TemplateID].revisions
	for n := len(revisions); n > b.revision; n-- {
		r := revisions[n-1]
		_, end := b.window(r.at)
		if !r.nextWindow || end != nil && !end.After(at) {
			changed := *b
			changed.set(r.settings)
			changed.revision = n
			return &changed
		}
	}
	return b
}

// follow lets a budget take over what its template has changed.
func (l *Ledger) follow(b *budget, by earmark.Actor) {
	if now := l.followed(b, l.now()); now.revision != b.revision {
		l.take(b, now.Budget)
		b.revision = now.revision
		l.noteBudget(b, by, "follows")
	}
}

// setFollowing lets a budget follow its template from now on, or no more.
func (l *Ledger) setFollowing(b *budget, follow bool, by earmark.Actor) error {
	if !follow {
		l.rollOver(b, l.now(), by)
		l.follow(b, by)
		if b.FollowsTemplate {
			b.FollowsTemplate, b.revision = false, 0
			l.noteBudget(b, by, "follows no more")
		}
		return nil
	}
	for _, t := range l.budgets {
		if t.Template && t.ArchivedAt == nil && t.Scope == templateScope(b.Scope) && t.sameLength(b) {
			l.rollOver(b, l.now(), by)
			l.follow(b, by)
			before := *b
			b.TemplateID, b.FollowsTemplate, b.revision = t.ID, true, len(t.revisions)
			l.take(b, t.Budget)
			if before.TemplateID != b.TemplateID || before.revision != b.revision || !sameSettings(before.Budget, b.Budget) {
				l.noteBudget(b, by, "follows")
			}
			return nil
		}
	}
	return earmark.Invalidf("follows_template", "none")
}

func sameSettings(a, b earmark.Budget) bool {
	return a.Limit == b.Limit && a.Enforcement == b.Enforcement && a.Overage == b.Overage && a.Allowance == b.Allowance && equal(a.SoftCeiling, b.SoftCeiling) && slices.Equal(a.Thresholds, b.Thresholds) && a.Rollover.Equal(b.Rollover)
}

// missing returns the budgets that templates give to scopes and those above them in one of units, as far as they
// do not exist.
func (l *Ledger) missing(tenant string, scopes []string, units func(string) bool) (children []*budget) {
	paths := map[string]bool{}
	for _, scope := range scopes {
		for _, path := range earmark.ScopePaths(scope) {
			paths[path] = true
		}
	}
	for _, id := range slices.Sorted(maps.Keys(l.budgets)) {
		t := l.budgets[id]
		for path := range paths {
			if !t.Template || t.ArchivedAt != nil || t.tenant != tenant || !units(t.Unit) || templateScope(path) != t.Scope {
				continue
			}
			has := false
			for _, b := range l.budgets {
				has = has || b.ArchivedAt == nil && b.Scope == path && b.sameLength(t)
			}
			if has {
				continue
			}
			child := &budget{l: l, tenant: tenant, windows: map[time.Time]*sums{}, Budget: t.Budget, revision: len(t.revisions)}
			child.ID, child.Scope, child.CreatedAt = l.childID(t.ID, path), path, l.now()
			child.Template, child.TemplateID, child.FollowsTemplate = false, t.ID, true
			children = append(children, child)
		}
	}
	return children
}

var childIDs = base32.NewEncoding("abcdefghijklmnopqrstuvwxyz234567").WithPadding(base32.NoPadding)

func (l *Ledger) childID(templateID, scope string) string {
	for n := 0; ; n++ {
		sum := sha256.Sum256(fmt.Appendf(nil, "%s %s %d", templateID, scope, n))
		id := "bud_" + childIDs.EncodeToString(sum[:16])
		if l.budgets[id] == nil || l.budgets[id].ArchivedAt == nil {
			return id
		}
	}
}

// meet makes the missing budgets, opens the windows of a moment, and lets all that a call meets follow their templates.
func (l *Ledger) meet(tenant string, scopes []string, amounts earmark.Amounts, at time.Time, by earmark.Actor) {
	asked := func(unit string) bool { _, ok := amounts[unit]; return ok }
	for _, child := range l.missing(tenant, scopes, asked) {
		child.beginRollover(l.now())
		l.budgets[child.ID] = child
		l.noteBudget(child, by, "made")
	}
	for _, b := range l.touch(tenant, scopes, amounts, l.now()) {
		l.rollOver(b.budget, at, by)
		l.follow(b.budget, by)
	}
}
