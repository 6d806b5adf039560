package demo

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/earmark-dev/earmark"
	"github.com/earmark-dev/earmark/client"
)

// The numbers of the lifecycle.
const (
	storyTokens      int64 = 600 // reserved; the limit has no room for twice of it
	storyUsage       int64 = 450
	storyTTLSeconds  int64 = 30
	storyExtension         = time.Minute
	dyingTokens      int64 = 300
	dyingTTLSeconds  int64 = 1
	expiryTimeout          = 20 * time.Second // an expiry that takes longer counts as none
	expiryPollPeriod       = 50 * time.Millisecond
)

// Step is one call of the lifecycle and its result.
type Step struct {
	Did  string `json:"did"`
	Came string `json:"came"`
}

// Story is the lifecycle of one reservation, and of one whose process dies.
type Story struct {
	Scope string `json:"scope"`
	Life  []Step `json:"life"`
	Death []Step `json:"death"`
	// ExpiredAfterSeconds is the time from the reservation to the first read that found it
	// expired.
	ExpiredAfterSeconds float64 `json:"expired_after_seconds"`
	// UIURL is the workflow of the dead process in Temporal UI; empty if the server does
	// not know its address.
	UIURL      string `json:"ui_url"`
	WorkflowID string `json:"workflow_id"`
}

// teller shows the lifecycle step by step.
type teller struct {
	*service
	show  func(Step)
	scope string
	steps []Step
}

func (t *teller) step(did, came string, args ...any) {
	step := Step{did, fmt.Sprintf(came, args...)}
	t.steps = append(t.steps, step)
	t.show(step)
}

// reserve reserves with a key of its own.
func (t *teller) reserve(ctx context.Context, name string, tokens, ttlSeconds int64) (*earmark.Reservation, error) {
	return t.api.Reserve(ctx, t.scope+"/"+name, earmark.ReservationRequest{
		Scopes: []string{t.scope}, Amounts: earmark.Amounts{unit: tokens}, TTLSeconds: ttlSeconds,
	})
}

func (t *teller) balance(ctx context.Context, budgetID string) (string, earmark.Balance, error) {
	budget, err := t.api.Budget(ctx, budgetID)
	if err != nil {
		return "", earmark.Balance{}, err
	}
	b := budget.Balance
	return fmt.Sprintf("%s reserved, %s committed, %s available", amount(b.Reserved), amount(b.Committed), amount(b.Available)), b, nil
}

// life reserves, is denied once, extends, commits, and reads the result.
func (t *teller) life(ctx context.Context, budgetID string) ([]Step, error) {
	t.steps = nil
	first, err := t.reserve(ctx, "life", storyTokens, storyTTLSeconds)
	if err != nil {
		return nil, err
	}
	t.step(fmt.Sprintf("reserve %d for %d s", storyTokens, storyTTLSeconds), "%s: %s", first.State, shortID(first.ID))
	_, err = t.reserve(ctx, "denied", storyTokens, storyTTLSeconds)
	var denial *earmark.Error
	if !client.IsDenied(err) || !errors.As(err, &denial) || len(denial.Violations) == 0 {
		return nil, fmt.Errorf("a second reservation of %d of %d tokens was not denied (%w)", storyTokens, limitTokens, orNone(err))
	}
	t.step(fmt.Sprintf("reserve %d more", storyTokens), "denied: %s of %s available, retryable: %t",
		amount(denial.Violations[0].Available), amount(limitTokens), denial.Retryable)
	extended, err := t.api.Extend(ctx, first.ID, storyExtension)
	if err != nil {
		return nil, err
	}
	t.step(fmt.Sprintf("extend by %d s", int(storyExtension.Seconds())), "expires %s instead of %s", clock(extended.ExpiresAt), clock(first.ExpiresAt))
	if err := t.commit(ctx, first.ID, storyUsage); err != nil {
		return nil, err
	}
	t.step(fmt.Sprintf("commit %d", storyUsage), "charged; %d go back", storyTokens-storyUsage)
	words, balance, err := t.balance(ctx, budgetID)
	if err != nil {
		return nil, err
	}
	if balance.Committed != storyUsage || balance.Reserved != 0 {
		return nil, fmt.Errorf("%s tokens were committed, but the balance says: %s", amount(storyUsage), words)
	}
	t.step("balance", "%s", words)
	entries, err := t.journal(ctx, earmark.EntryFilter{ReservationID: first.ID})
	if err != nil {
		return nil, err
	}
	for _, entry := range entries {
		t.step("entry "+entry.Kind, "%s", entryWords(entry))
	}
	return t.steps, nil
}

// death makes a reservation that nobody settles.
func (t *teller) death(ctx context.Context, budgetID string, scratch *scratch) (story Story, err error) {
	t.steps = nil
	counter, err := scratch.newCounter(ctx)
	if err != nil {
		return story, err
	}
	if _, err := counter.hold(ctx, dyingTokens); err != nil {
		return story, err
	}
	begun := time.Now()
	dying, err := t.reserve(ctx, "death", dyingTokens, dyingTTLSeconds)
	if err != nil {
		return story, err
	}
	t.step(fmt.Sprintf("reserve %d for %d s", dyingTokens, dyingTTLSeconds), "%s: %s; then the process is gone", dying.State, shortID(dying.ID))
	if err := t.awaitExpiry(ctx, dying.ID); err != nil {
		return story, err
	}
	story.ExpiredAfterSeconds = time.Since(begun).Seconds()
	words, balance, err := t.balance(ctx, budgetID)
	if err != nil {
		return story, err
	}
	if balance.Reserved != 0 {
		return story, fmt.Errorf("%s expired, but the balance says: %s", dying.ID, words)
	}
	t.step(fmt.Sprintf("%.1f s later", story.ExpiredAfterSeconds), "expired by itself; %s available", amount(balance.Available))
	left, err := counter.counted(ctx)
	if err != nil {
		return story, err
	}
	t.step("the guarded UPDATE", "still %s set aside, and no row says for whom", amount(left))
	story.Death, story.UIURL, story.WorkflowID = t.steps, dying.UIURL, dying.WorkflowID
	return story, nil
}

func (t *teller) awaitExpiry(ctx context.Context, id string) error {
	ctx, cancel := context.WithTimeoutCause(ctx, expiryTimeout, fmt.Errorf("%s did not expire within %s", id, expiryTimeout))
	defer cancel()
	for {
		reservation, err := t.api.Reservation(ctx, id)
		if err == nil && reservation.State == earmark.StateExpired {
			return nil
		}
		if err == nil {
			err = pause(ctx, expiryPollPeriod)
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if err != nil {
			return err
		}
	}
}

// tell shows the whole lifecycle, on a budget of its own.
func (s *service) tell(ctx context.Context, scratch *scratch, show func(Step)) (*Story, error) {
	t := &teller{service: s, scope: s.scope + "/story", show: show}
	budget, err := s.newBudget(ctx, t.scope)
	if err != nil {
		return nil, err
	}
	life, err := t.life(ctx, budget.ID)
	if err != nil {
		return nil, err
	}
	t.show(Step{})
	story, err := t.death(ctx, budget.ID, scratch)
	story.Scope, story.Life = t.scope, life
	return &story, err
}

func entryWords(entry earmark.Entry) string {
	var words []string
	for _, delta := range []struct {
		tokens int64
		what   string
	}{{entry.ReservedDelta, "reserved"}, {entry.CommittedDelta, "committed"}} {
		if delta.tokens != 0 {
			words = append(words, fmt.Sprintf("%+d %s", delta.tokens, delta.what))
		}
	}
	if entry.Reason != "" {
		words = append(words, entry.Reason)
	}
	return strings.Join(words, ", ")
}

func amount(n int64) string { return earmark.FormatAmount(n) }

func clock(at *time.Time) string {
	if at == nil {
		return "never"
	}
	return at.Local().Format(time.TimeOnly)
}

// shortID returns enough of an id to distinguish it from others.
func shortID(id string) string {
	const enough = len("rsv_") + 8
	if len(id) <= enough {
		return id
	}
	return id[:enough] + "…"
}

func orNone(err error) error {
	if err == nil {
		return errors.New("it was admitted")
	}
	return err
}
