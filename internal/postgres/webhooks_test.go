package postgres_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/earmark-dev/earmark"
	"github.com/earmark-dev/earmark/internal/webhook"
)

const webhookURL = "https://example.com/hooks"

func (b *env) webhook(r earmark.WebhookRequest) *earmark.IssuedWebhook {
	b.t.Helper()
	r.URL = webhookURL
	w, err := b.CreateWebhook(ctx(), earmark.DefaultTenant, r, alice)
	require.NoError(b.t, err)
	return w
}

// happens writes an event, and waits until the feed has it.
func (b *env) happens(name earmark.EventType, scope, budgetID string) (id string) {
	b.t.Helper()
	_, err := b.pool.Exec(ctx(), "SELECT earmark.emit($1, $2, ARRAY [$3], nullif($4, ''), NULL, NULL, '{}')", string(name), earmark.DefaultTenant, scope, budgetID)
	require.NoError(b.t, err)
	events, _ := b.events("")
	return events[len(events)-1].ID
}

// next returns what an endpoint is to be sent.
func (b *env) next(id string) (batch webhook.Batch, ids []string) {
	b.t.Helper()
	batch, err := b.NextDeliveries(ctx(), id, 100)
	require.NoError(b.t, err)
	for _, e := range batch.Events {
		ids = append(ids, e.ID)
	}
	return batch, ids
}

// record records attempts at the first events of a batch: all but the last one succeeded, and that one if failure is empty.
func (b *env) record(id string, batch webhook.Batch, count int, failure string) (disabled bool) {
	b.t.Helper()
	var attempts []webhook.Attempt
	for i, e := range batch.Events[:count] {
		a := webhook.Attempt{EventID: e.ID, Type: e.Type, Attempt: 1, At: time.Now(), DurationMS: 3, Status: 200}
		if i == 0 {
			a.Attempt = batch.Attempts + 1
		}
		if i == count-1 && failure != "" {
			a.Status, a.Error = 500, failure
		}
		attempts = append(attempts, a)
	}
	disabled, err := b.RecordDeliveries(ctx(), id, batch.After, attempts, time.Hour)
	require.NoError(b.t, err)
	return disabled
}

func (b *env) claimed(lease time.Duration) (ids []string) {
	b.t.Helper()
	claims, err := b.ClaimWebhooks(ctx(), lease, 100)
	require.NoError(b.t, err)
	for _, c := range claims {
		require.Equal(b.t, earmark.DefaultTenant, c.Tenant)
		ids = append(ids, c.ID)
	}
	return ids
}

func (b *env) shown(id string) *earmark.Webhook {
	b.t.Helper()
	w, err := b.Webhook(ctx(), earmark.DefaultTenant, id)
	require.NoError(b.t, err)
	return w
}

func (b *env) deliveries(id string) []earmark.Delivery {
	b.t.Helper()
	var all []earmark.Delivery
	f := earmark.PageFilter{Limit: 2}
	for {
		page, err := b.Deliveries(ctx(), id, f)
		require.NoError(b.t, err)
		if all = append(all, page.Data...); page.NextCursor == "" {
			return all
		}
		f.Cursor = page.NextCursor
	}
}

// An endpoint receives the events after its creation, in their order, each until it was delivered.
func TestWebhookReceivesEventsInOrder(t *testing.T) {
	b := setup(t)
	b.happens(earmark.EventExpired, "acme", "")
	w := b.webhook(earmark.WebhookRequest{})
	batch, _ := b.next(w.ID)
	require.Equal(t, webhook.StateIdle, batch.State)
	require.Empty(t, b.claimed(0))

	first, second, third := b.happens(earmark.EventExpired, "acme", ""), b.happens(earmark.EventReview, "acme", ""), b.happens(earmark.EventCorrected, "acme", "")
	require.Equal(t, []string{w.ID}, b.claimed(time.Minute))
	require.Empty(t, b.claimed(time.Minute), "its workflow was asked")
	require.Equal(t, []string{w.ID}, b.claimed(0), "and is asked again")
	batch, ids := b.next(w.ID)
	require.Equal(t, webhook.StateDue, batch.State)
	require.Equal(t, webhookURL, batch.URL)
	require.Equal(t, w.Secret, batch.Secrets[0].Reveal())
	require.Equal(t, []string{first, second, third}, ids)

	require.False(t, b.record(w.ID, batch, 2, "the endpoint answered 500"))
	waiting, _ := b.next(w.ID)
	require.Equal(t, webhook.StateWaiting, waiting.State)
	require.InDelta(t, time.Hour.Milliseconds(), waiting.WaitMS, 60_000)
	require.Empty(t, b.claimed(0), "it waits")
	shown := b.shown(w.ID)
	require.Equal(t, first, shown.After)
	require.Equal(t, "the endpoint answered 500", shown.LastError)
	require.NotNil(t, shown.FailingSince)
	require.NotNil(t, shown.NextAttemptAt)

	yes := true
	_, err := b.PatchWebhook(ctx(), earmark.DefaultTenant, w.ID, earmark.WebhookPatch{Enabled: &yes}, alice)
	require.NoError(t, err)
	batch, ids = b.next(w.ID)
	require.Equal(t, []string{second, third}, ids)
	b.record(w.ID, batch, 2, "")
	batch, _ = b.next(w.ID)
	require.Equal(t, webhook.StateIdle, batch.State)
	log := b.deliveries(w.ID)
	require.Len(t, log, 4)
	require.Equal(t, []string{third, second, second, first}, []string{log[0].EventID, log[1].EventID, log[2].EventID, log[3].EventID})
	require.Equal(t, 500, log[2].Status)
	require.NotNil(t, log[2].NextAttemptAt)
	require.Empty(t, log[0].Error)
	require.Nil(t, log[0].NextAttemptAt)
}

// An event of a transaction that is open while later ones are delivered is delivered too.
func TestWebhookMissesNoOpenTransaction(t *testing.T) {
	b := setup(t)
	w := b.webhook(earmark.WebhookRequest{})
	open := b.begin()
	_, err := open.Exec(ctx(), "SELECT earmark.emit('reservation.expired', $1, '{acme}', NULL, NULL, NULL, '{}')", earmark.DefaultTenant)
	require.NoError(t, err)
	_, err = b.pool.Exec(ctx(), "SELECT earmark.emit('reservation.review', $1, '{acme}', NULL, NULL, NULL, '{}')", earmark.DefaultTenant)
	require.NoError(t, err)
	batch, _ := b.next(w.ID)
	require.Equal(t, webhook.StateIdle, batch.State)
	require.NoError(t, open.Commit(ctx()))
	b.events("")
	batch, _ = b.next(w.ID)
	require.Equal(t, []earmark.EventType{earmark.EventExpired, earmark.EventReview}, typesOf(batch.Events))
}

// Attempts at events that somebody else has delivered meanwhile move nothing.
func TestDeliveryTwiceMovesOnce(t *testing.T) {
	b := setup(t)
	w := b.webhook(earmark.WebhookRequest{})
	b.happens(earmark.EventExpired, "acme", "")
	second := b.happens(earmark.EventReview, "acme", "")
	batch, _ := b.next(w.ID)
	b.record(w.ID, batch, 2, "")
	b.record(w.ID, batch, 1, "")
	b.record(w.ID, batch, 1, "a late failure")
	require.Equal(t, second, b.shown(w.ID).After)
	require.Empty(t, b.shown(w.ID).LastError)
	require.Len(t, b.deliveries(w.ID), 4)
}

func TestWebhookFilters(t *testing.T) {
	b := setup(t)
	budget, other := b.budget("acme", "tokens", 100), b.budget("other", "tokens", 100)
	for name, test := range map[string]struct {
		request earmark.WebhookRequest
		wants   []int
	}{
		"all":     {earmark.WebhookRequest{}, []int{0, 1, 2, 3}},
		"types":   {earmark.WebhookRequest{Types: []earmark.EventType{earmark.EventExhausted}}, []int{0, 1}},
		"budgets": {earmark.WebhookRequest{Budgets: []string{budget.ID}}, []int{0}},
		"scopes":  {earmark.WebhookRequest{Scopes: []string{"acme"}}, []int{0, 2}},
		"both":    {earmark.WebhookRequest{Scopes: []string{"acme"}, Types: []earmark.EventType{earmark.EventExpired}}, []int{2}},
	} {
		w := b.webhook(test.request)
		happened := []string{
			b.happens(earmark.EventExhausted, "acme", budget.ID), b.happens(earmark.EventExhausted, "other", other.ID),
			b.happens(earmark.EventExpired, "acme/u1", ""), b.happens(earmark.EventExpired, "acmeother", ""),
		}
		var want []string
		for _, i := range test.wants {
			want = append(want, happened[i])
		}
		_, ids := b.next(w.ID)
		require.Equal(t, want, ids, name)
	}
}

// Events that an endpoint does not want wake no workflow, and are looked at once.
func TestUnwantedEventsWakeNobody(t *testing.T) {
	b := setup(t)
	w := b.webhook(earmark.WebhookRequest{Types: []earmark.EventType{earmark.EventReview}})
	unwanted := b.happens(earmark.EventExpired, "acme", "")
	require.Empty(t, b.claimed(0))
	require.Equal(t, unwanted, b.shown(w.ID).After)
}

// After 72 hours of failures an endpoint is disabled, which is an event; enabled again, it goes on where it stopped.
func TestWebhookIsDisabledAfterThreeDays(t *testing.T) {
	b := setup(t)
	w, other := b.webhook(earmark.WebhookRequest{}), b.webhook(earmark.WebhookRequest{Types: []earmark.EventType{earmark.EventWebhookDisabled}})
	lost := b.happens(earmark.EventExpired, "acme", "")
	fails := func(failingFor time.Duration) bool {
		batch, _ := b.next(w.ID)
		require.False(t, b.record(w.ID, batch, 1, "no answer"))
		_, err := b.pool.Exec(ctx(), "UPDATE earmark.webhooks SET retry_at = now(), failing_since = now() - $2::interval WHERE id = $1", w.ID, failingFor)
		require.NoError(t, err)
		batch, _ = b.next(w.ID)
		require.Equal(t, 1, batch.Attempts)
		return b.record(w.ID, batch, 1, "no answer")
	}
	require.False(t, fails(71*time.Hour))
	yes := true
	_, err := b.PatchWebhook(ctx(), earmark.DefaultTenant, w.ID, earmark.WebhookPatch{Enabled: &yes}, alice)
	require.NoError(t, err)
	require.True(t, fails(72*time.Hour))

	shown := b.shown(w.ID)
	require.False(t, shown.Enabled)
	require.Contains(t, shown.DisabledReason, "every attempt since")
	require.Nil(t, shown.NextAttemptAt)
	batch, _ := b.next(w.ID)
	require.Equal(t, webhook.StateOver, batch.State)
	b.events("")
	require.Equal(t, []string{other.ID}, b.claimed(0))
	batch, _ = b.next(other.ID)
	require.Equal(t, []earmark.EventType{earmark.EventWebhookDisabled}, typesOf(batch.Events))
	require.Equal(t, w.ID, dataOf(t, batch.Events[0])["webhook_id"])
	bound, _ := b.eventsNow("", func(f *earmark.EventFilter) { f.Within = []string{"acme"} })
	require.Equal(t, []earmark.EventType{earmark.EventExpired}, typesOf(bound), "a key that is bound to scopes does not see it")

	_, err = b.PatchWebhook(ctx(), earmark.DefaultTenant, w.ID, earmark.WebhookPatch{Enabled: &yes}, alice)
	require.NoError(t, err)
	_, ids := b.next(w.ID)
	require.Equal(t, lost, ids[0])
}

// A replay delivers the events of its time again, and then goes on where the endpoint was.
func TestWebhookReplay(t *testing.T) {
	b := setup(t)
	w := b.webhook(earmark.WebhookRequest{})
	var ids []string
	for i := range 5 {
		ids = append(ids, b.happens(earmark.EventExpired, fmt.Sprint("acme/u", i), ""))
	}
	batch, _ := b.next(w.ID)
	b.record(w.ID, batch, 4, "")
	at := func(i int) time.Time { return batch.Events[i].CreatedAt }
	to := at(3)
	replayed, err := b.ReplayWebhook(ctx(), earmark.DefaultTenant, w.ID, earmark.WebhookReplay{From: at(1), To: &to}, alice)
	require.NoError(t, err)
	require.NotNil(t, replayed)
	again, got := b.next(w.ID)
	require.Equal(t, []string{ids[1], ids[2], ids[4]}, got, "the fifth was not delivered before")
	b.record(w.ID, again, 1, "")

	// Another replay, before the end of this one, ends where this one ends.
	_, err = b.ReplayWebhook(ctx(), earmark.DefaultTenant, w.ID, earmark.WebhookReplay{From: at(0), To: &to}, alice)
	require.NoError(t, err)
	again, got = b.next(w.ID)
	require.Equal(t, []string{ids[0], ids[1], ids[2], ids[4]}, got)
	b.record(w.ID, again, 4, "")
	_, err = b.ReplayWebhook(ctx(), earmark.DefaultTenant, w.ID, earmark.WebhookReplay{From: at(3)}, alice)
	require.NoError(t, err)
	again, got = b.next(w.ID)
	require.Equal(t, []string{ids[3], ids[4]}, got)
	b.record(w.ID, again, 2, "")
	_, err = b.ReplayWebhook(ctx(), earmark.DefaultTenant, w.ID, earmark.WebhookReplay{From: time.Now().Add(-time.Millisecond)}, alice)
	require.NoError(t, err)
	again, _ = b.next(w.ID)
	require.Equal(t, webhook.StateIdle, again.State)
}

// For a day after a rotation both secrets sign.
func TestRotatedSecretSignsForADay(t *testing.T) {
	b := setup(t)
	w := b.webhook(earmark.WebhookRequest{})
	rotated, err := b.RotateWebhookSecret(ctx(), earmark.DefaultTenant, w.ID, alice)
	require.NoError(t, err)
	require.NotEqual(t, w.Secret, rotated.Secret)
	require.WithinDuration(t, time.Now().Add(24*time.Hour), *rotated.FormerSecretUntil, time.Minute)
	secrets := func() (texts []string) {
		target, err := b.WebhookTarget(ctx(), earmark.DefaultTenant, w.ID)
		require.NoError(t, err)
		for _, s := range target.Secrets {
			texts = append(texts, s.Reveal())
		}
		return texts
	}
	require.Equal(t, []string{rotated.Secret, w.Secret}, secrets())
	_, err = b.pool.Exec(ctx(), "UPDATE earmark.webhooks SET former_until = now()")
	require.NoError(t, err)
	require.Equal(t, []string{rotated.Secret}, secrets())
}

func TestWebhooksOfATenant(t *testing.T) {
	b := setup(t)
	w := b.webhook(earmark.WebhookRequest{})
	page, err := b.Webhooks(ctx(), earmark.DefaultTenant, earmark.PageFilter{})
	require.NoError(t, err)
	require.Equal(t, []earmark.Webhook{w.Webhook}, page.Data)
	page, err = b.Webhooks(ctx(), "another", earmark.PageFilter{})
	require.NoError(t, err)
	require.Empty(t, page.Data)

	no := false
	for _, tenant := range []string{"another", earmark.DefaultTenant} {
		patched, err := b.PatchWebhook(ctx(), tenant, w.ID, earmark.WebhookPatch{Enabled: &no, Scopes: &[]string{"acme"}}, alice)
		require.NoError(t, err)
		rotated, err := b.RotateWebhookSecret(ctx(), tenant, w.ID, alice)
		require.NoError(t, err)
		replayed, err := b.ReplayWebhook(ctx(), tenant, w.ID, earmark.WebhookReplay{From: time.Now()}, alice)
		require.NoError(t, err)
		target, err := b.WebhookTarget(ctx(), tenant, w.ID)
		require.NoError(t, err)
		deleted, err := b.DeleteWebhook(ctx(), tenant, w.ID, alice)
		require.NoError(t, err)
		own := tenant == earmark.DefaultTenant
		require.Equal(t, []bool{own, own, own, own, own}, []bool{patched != nil, rotated != nil, replayed != nil, target != nil, deleted != nil})
		if own {
			require.Equal(t, "disabled by operator:alice", patched.DisabledReason)
			require.Equal(t, []string{"acme"}, patched.Scopes)
		}
	}
	require.Nil(t, b.shown(w.ID))
	require.Equal(t, []string{earmark.ActionWebhookCreate, earmark.ActionWebhookChange, earmark.ActionWebhookRotate, earmark.ActionWebhookReplay, earmark.ActionWebhookDelete}, b.actions(w.ID))

	_, err = b.CreateWebhook(ctx(), earmark.DefaultTenant, earmark.WebhookRequest{URL: webhookURL, Budgets: []string{"bud_aaaaaaaaaaaaaaaaaaaaaaaaaa"}}, alice)
	require.ErrorContains(t, err, "bud_aaaaaaaaaaaaaaaaaaaaaaaaaa")
	for range earmark.MaxWebhooks {
		b.webhook(earmark.WebhookRequest{})
	}
	_, err = b.CreateWebhook(ctx(), earmark.DefaultTenant, earmark.WebhookRequest{URL: webhookURL}, alice)
	require.Equal(t, earmark.CodeInvalidRequest, earmark.ErrorCode(err))
}

// An empty list in a patch selects everything again.
func TestPatchEmptiesFilters(t *testing.T) {
	b := setup(t)
	w := b.webhook(earmark.WebhookRequest{Types: []earmark.EventType{earmark.EventReview}, Scopes: []string{"acme"}})
	patched, err := b.PatchWebhook(ctx(), earmark.DefaultTenant, w.ID, earmark.WebhookPatch{Types: new([]earmark.EventType), Scopes: new([]string), Budgets: new([]string)}, alice)
	require.NoError(t, err)
	require.Empty(t, patched.Types)
	require.Empty(t, patched.Scopes)
}

// Attempts are kept as long as events.
func TestPruneRemovesOldDeliveries(t *testing.T) {
	b := setup(t)
	w := b.webhook(earmark.WebhookRequest{})
	b.happens(earmark.EventExpired, "acme", "")
	b.happens(earmark.EventExpired, "acme", "")
	batch, _ := b.next(w.ID)
	b.record(w.ID, batch, 2, "")
	_, err := b.pool.Exec(ctx(), "UPDATE earmark.deliveries SET at = now() - interval '31 days' WHERE event_id = $1", batch.Events[0].ID)
	require.NoError(t, err)
	require.EqualValues(t, 1, b.prune(90*24*time.Hour).Deliveries)
	require.Len(t, b.deliveries(w.ID), 1)
}
