//go:build unix

package e2e_test

import (
	"fmt"
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	enumspb "go.temporal.io/api/enums/v1"

	"github.com/earmark-dev/earmark"
	"github.com/earmark-dev/earmark/internal/stack"
)

// Leases run out by the workflow's own timer, each by its policy.
func TestExpiry(t *testing.T) {
	t.Parallel()
	b := setup(t, stack.Options{})
	budget := b.budget("acme", "tokens", 1000)
	held := map[string]earmark.Reservation{}
	for _, policy := range []string{"release", "commit", "review"} {
		held[policy] = b.hold(policy, fmt.Sprintf(`{"scopes":["acme"],"amounts":{"tokens":100},"ttl_seconds":1,"on_expiry":%q}`, policy))
	}
	reviewed := b.hold("reviewed", `{"scopes":["acme"],"amounts":{"tokens":100},"ttl_seconds":1,"on_expiry":"review"}`)
	begun := time.Now()

	expired := b.awaitState(held["release"].ID, earmark.StateExpired, moment)
	require.False(t, expired.SettledAt.Before(*expired.ExpiresAt))
	estimated := b.awaitState(held["commit"].ID, earmark.StateCommitted, moment)
	require.True(t, estimated.Estimated)
	require.Equal(t, earmark.Amounts{"tokens": 100}, estimated.Usage)
	b.awaitState(held["review"].ID, earmark.StateReview, moment)
	require.Less(t, time.Since(begun), moment)
	b.requireBalance(budget, 200, 100)
	for _, reservation := range held {
		journal := b.entries(reservation.ID)
		require.Equal(t, earmark.ActorWorkflow.String(), journal[len(journal)-1].Actor)
	}
	b.awaitFound(1, "EarmarkState = 'review' AND WorkflowId = '"+held["review"].WorkflowID+"'")
	b.awaitClosed(held["release"].ID, enumspb.WORKFLOW_EXECUTION_STATUS_COMPLETED)
	b.awaitClosed(held["commit"].ID, enumspb.WORKFLOW_EXECUTION_STATUS_COMPLETED)

	b.do("POST", "/v1/reservations", `{"scopes":["acme"],"amounts":{"tokens":100},"ttl_seconds":1,"on_expiry":"release"}`, "Idempotency-Key", "release").
		problem(t, http.StatusGone, earmark.CodeReservationExpired)
	b.do("POST", "/v1/reservations/"+held["review"].ID+"/extend", `{"ttl_seconds":60}`).problem(t, http.StatusGone, earmark.CodeReservationExpired)
	for policy, reservation := range held {
		b.commitLate(reservation.ID, 30)
		b.commit(reservation.ID, 30).status(t, http.StatusOK)
		b.commit(reservation.ID, 31).problem(t, http.StatusConflict, earmark.CodeAlreadySettled)
		b.awaitClosed(reservation.ID, enumspb.WORKFLOW_EXECUTION_STATUS_COMPLETED)
		require.False(t, b.reservation(reservation.ID).Estimated, policy)
	}
	b.awaitState(reviewed.ID, earmark.StateReview, moment)
	b.do("POST", "/v1/reservations/"+reviewed.ID+"/release", `{"reason":"looked at it"}`).status(t, http.StatusOK)
	b.awaitClosed(reviewed.ID, enumspb.WORKFLOW_EXECUTION_STATUS_COMPLETED)
	b.requireBalance(budget, 0, 90)
}

// An extension that arrives about when the lease runs out is either in time or
// told that it was not, and the reservation is what was answered.
func TestExtensionRacesExpiry(t *testing.T) {
	t.Parallel()
	b := setup(t, stack.Options{})
	budget := b.budget("acme", "tokens", 1000)
	const calls = 16
	held := together(calls, func(i int) exchange {
		return b.try("POST", "/v1/reservations", tokens("acme", 10, 1), "Idempotency-Key", fmt.Sprint("key-", i))
	})
	answers := together(calls, func(i int) exchange {
		var reservation earmark.Reservation
		if held[i].code == http.StatusCreated {
			reservation = decoded[earmark.Reservation](t, held[i])
			time.Sleep(time.Until(reservation.ExpiresAt.Add(time.Duration(i) * 20 * time.Millisecond))) //nolint:forbidigo // to meet the end of the lease
		}
		return b.try("POST", "/v1/reservations/"+reservation.ID+"/extend", `{"ttl_seconds":600}`)
	})
	extended := int64(0)
	for i, x := range answers {
		id := decoded[earmark.Reservation](t, held[i].status(t, http.StatusCreated)).ID
		if x.code == http.StatusOK {
			extended++
			require.Equal(t, earmark.StateHeld, b.reservation(id).State)
			continue
		}
		require.Equal(t, earmark.StateExpired, x.problem(t, http.StatusGone, earmark.CodeReservationExpired).Reservation.State)
	}
	t.Logf("%d of %d extensions were in time", extended, calls)
	b.requireBalance(budget, extended*10, 0)
	for i := range answers {
		if answers[i].code == http.StatusOK {
			require.False(t, decoded[earmark.Reservation](t, b.commit(decoded[earmark.Reservation](t, held[i]).ID, 10).status(t, http.StatusOK)).Late)
		}
	}
	b.requireBalance(budget, 0, extended*10)
}

// What is overdue does not stand in the way of an admission, even when nobody has
// expired it yet.
func TestOverdueIsNotInTheWay(t *testing.T) {
	t.Parallel()
	b := setup(t, stack.Options{}, "--without-worker")
	worker := b.Worker()
	budget := b.budget("acme", "tokens", 100)
	held := b.hold("first", tokens("acme", 100, 1))
	worker.Pause()
	stack.Eventually(t, moment, "the hold to be overdue", func() bool { return b.reservation(held.ID).Overdue })
	decision := decoded[earmark.Decision](t, b.do("POST", "/v1/decisions", tokens("acme", 100, 60)).status(t, http.StatusOK))
	require.True(t, decision.Admitted)
	worker.Resume()
	// The first may just be expired by its workflow, which an admission does not wait for.
	stack.Eventually(t, moment, "the second hold", func() bool {
		return b.do("POST", "/v1/reservations", tokens("acme", 100, 60), "Idempotency-Key", "second").code == http.StatusCreated
	})
	b.requireBalance(budget, 100, 0)
	b.commitLate(held.ID, 100)
	b.requireBalance(budget, 100, 100)
}
