package activityguard_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/mock"
	"github.com/stretchr/testify/require"
	"go.temporal.io/api/serviceerror"
	"go.temporal.io/sdk/interceptor"
	"go.temporal.io/sdk/mocks"
	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/testsuite"
	"go.temporal.io/sdk/worker"

	"github.com/earmark-dev/earmark"
	"github.com/earmark-dev/earmark/client"
	"github.com/earmark-dev/earmark/client/activityguard"
	"github.com/earmark-dev/earmark/client/internal/fake"
	"github.com/earmark-dev/earmark/workflows"
)

var errModel = errors.New("the model failed")

// env runs one activity under the guard, on a fake Earmark and a mocked Temporal.
type env struct {
	t        *testing.T
	earmark  *fake.Earmark
	signals  *mocks.Client
	guarded  bool
	shows    bool // Options.ShowViolations
	onExpiry earmark.OnExpiry
}

func setup(t *testing.T) *env {
	t.Helper()
	t.Parallel()
	b := &env{t: t, earmark: &fake.Earmark{Limit: 1000}, signals: mocks.NewClient(t), guarded: true, onExpiry: earmark.OnExpiryRelease}
	return b
}

func (b *env) run(call func(ctx context.Context) error) error {
	b.t.Helper()
	url, stop := b.earmark.Serve()
	b.t.Cleanup(stop)
	earmarks, err := client.New(url)
	require.NoError(b.t, err)
	guard := activityguard.NewInterceptor(activityguard.Options{
		Earmark: earmarks, Temporal: b.signals, ShowViolations: b.shows, Logger: slog.New(slog.DiscardHandler),
		Request: func(_ context.Context, activityType string, args []any) (earmark.ReservationRequest, bool, error) {
			require.Equal(b.t, []any{"prompt"}, args)
			return earmark.ReservationRequest{Scopes: []string{"acme"}, Amounts: earmark.Amounts{"tokens": 600}, OnExpiry: b.onExpiry}, b.guarded, nil
		},
	})
	var suite testsuite.WorkflowTestSuite
	env := suite.NewTestActivityEnvironment()
	env.SetWorkerOptions(worker.Options{Interceptors: []interceptor.WorkerInterceptor{guard}})
	activity := func(ctx context.Context, _ string) error { return call(ctx) }
	env.RegisterActivity(activity)
	_, err = env.ExecuteActivity(activity, "prompt")
	return err
}

// expectSignal expects one signal to the reservation's workflow.
func (b *env) expectSignal(name string, message any, answer error) {
	b.signals.On("SignalWorkflow", mock.Anything, mock.MatchedBy(func(id string) bool {
		reservations := b.earmark.Reservations()
		return len(reservations) == 1 && id == workflows.Prefix("").ReservationWorkflowID(reservations[0].ID)
	}), "", name, message).Return(answer).Once()
}

func tokens(n int64) earmark.Amounts { return earmark.Amounts{"tokens": n} }

func TestUsageIsSignalled(t *testing.T) {
	b := setup(t)
	b.expectSignal("commit", workflows.CommitMessage{Usage: tokens(450)}, nil)
	require.NoError(t, b.run(func(ctx context.Context) error {
		activityguard.Meter(ctx).Add(tokens(400))
		activityguard.Meter(ctx).Add(tokens(50))
		return nil
	}))
	require.Equal(t, []string{"reserve"}, b.earmark.Verbs())
}

func TestUsageOfAFailedActivityIsChargedToo(t *testing.T) {
	b := setup(t)
	b.expectSignal("commit", workflows.CommitMessage{Usage: tokens(7)}, nil)
	err := b.run(func(ctx context.Context) error {
		activityguard.Meter(ctx).Set(tokens(7))
		return errModel
	})
	require.ErrorContains(t, err, errModel.Error())
}

func TestUsageOfAPanicIsChargedToo(t *testing.T) {
	b := setup(t)
	b.expectSignal("commit", workflows.CommitMessage{Usage: tokens(7)}, nil)
	err := b.run(func(ctx context.Context) error {
		activityguard.Meter(ctx).Set(tokens(7))
		panic("bug")
	})
	require.ErrorContains(t, err, "bug")
}

func TestLateUsageGoesToTheAPI(t *testing.T) {
	b := setup(t)
	b.expectSignal("commit", workflows.CommitMessage{Usage: tokens(450)}, serviceerror.NewNotFound("workflow execution already completed"))
	require.NoError(t, b.run(func(ctx context.Context) error {
		activityguard.Meter(ctx).Set(tokens(450))
		return nil
	}))
	require.Equal(t, []string{"reserve", "commit"}, b.earmark.Verbs())
}

// Signals carry amounts, so a response goes to the API.
func TestAResponseGoesToTheAPI(t *testing.T) {
	b := setup(t)
	require.ErrorContains(t, b.run(func(ctx context.Context) error {
		activityguard.Meter(ctx).Add(tokens(9))
		activityguard.Meter(ctx).SetResponse(earmark.Response{ProviderUsage: json.RawMessage(`{"prompt_tokens":11,"completion_tokens":7,"total_tokens":18}`)})
		return errModel
	}), errModel.Error())
	require.Equal(t, []string{"reserve", "commit"}, b.earmark.Verbs())
	require.Equal(t, tokens(18), b.earmark.Reservations()[0].Usage)
}

func TestNothingSentGivesBack(t *testing.T) {
	b := setup(t)
	b.expectSignal("release", workflows.ReleaseMessage{Reason: "the activity sent nothing"}, nil)
	require.Error(t, b.run(func(ctx context.Context) error {
		activityguard.Meter(ctx).NothingSent()
		return errModel
	}))
}

func TestUnknownUsageIsLeftToTheExpiry(t *testing.T) {
	t.Parallel()
	for name, count := range map[string]func(*client.Meter){
		"nothing counted":        func(*client.Meter) {},
		"zero and then an error": func(m *client.Meter) { m.Set(tokens(0)) },
	} {
		t.Run(name, func(t *testing.T) {
			b := setup(t) // the mock refuses any signal
			require.Error(t, b.run(func(ctx context.Context) error {
				count(activityguard.Meter(ctx))
				return errModel
			}))
			require.Equal(t, []string{"reserve"}, b.earmark.Verbs())
			require.Equal(t, earmark.StateHeld, b.earmark.Reservations()[0].State)
		})
	}
}

func TestDenialDoesNotRunTheActivity(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name  string
		limit int64
		retry bool
		shows bool
	}{{"too large for the limit", 599, false, false}, {"holds in the way", 1000, true, false}, {"violations are shown", 599, false, true}} {
		t.Run(test.name, func(t *testing.T) {
			b := setup(t)
			b.earmark.Limit, b.shows = test.limit, test.shows
			if test.retry {
				b.hold()
			}
			err := b.run(func(context.Context) error {
				t.Error("the activity ran without budget")
				return nil
			})
			var failure *temporal.ApplicationError
			require.ErrorAs(t, err, &failure)
			require.Equal(t, "budget_exceeded", failure.Type())
			require.Equal(t, !test.retry, failure.NonRetryable())
			require.Zero(t, failure.NextRetryDelay(), "the activity's retry policy sets the pace")
			if !test.shows {
				require.False(t, failure.HasDetails())
				require.NoError(t, failure.Unwrap(), "a cause is shown with its text")
				require.Equal(t, "the activity does not fit into its spending limit", failure.Message())
				return
			}
			var violations []earmark.Violation
			require.NoError(t, failure.Details(&violations))
			require.Equal(t, int64(600), violations[0].Requested)
		})
	}
}

// TestASpentBudgetWaitsForANearWindow has all of the budget charged.
func TestASpentBudgetWaitsForANearWindow(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		retryAfter string
		retryable  bool
		delay      time.Duration // 0: not tried again
	}{{"", false, 0}, {"30", true, 30 * time.Second}, {"604800", true, 0}} {
		t.Run(test.retryAfter, func(t *testing.T) {
			b := setup(t)
			b.earmark.Intercept = func(string, int) http.HandlerFunc {
				return func(w http.ResponseWriter, _ *http.Request) {
					if test.retryable {
						w.Header().Set("Retry-After", test.retryAfter)
					}
					w.WriteHeader(http.StatusPaymentRequired)
					_, _ = fmt.Fprintf(w, `{"code":"budget_exceeded","detail":"does not fit","retryable":%t,
						"violations":[{"limit":1000,"committed":1000,"requested":600}]}`, test.retryable)
				}
			}
			err := b.run(func(context.Context) error {
				t.Error("the activity ran without budget")
				return nil
			})
			var failure *temporal.ApplicationError
			require.ErrorAs(t, err, &failure)
			require.Equal(t, test.delay == 0, failure.NonRetryable())
			if test.delay > 0 {
				require.Equal(t, test.delay, failure.NextRetryDelay())
			}
		})
	}
}

// hold takes most of the budget.
func (b *env) hold() {
	url, stop := b.earmark.Serve()
	defer stop()
	earmarks, err := client.New(url)
	require.NoError(b.t, err)
	_, err = earmarks.Reserve(b.t.Context(), "before", earmark.ReservationRequest{Scopes: []string{"acme"}, Amounts: tokens(900)})
	require.NoError(b.t, err)
}

func TestTheExpiryPolicyIsChosen(t *testing.T) {
	b := setup(t)
	b.onExpiry = ""
	err := b.run(func(context.Context) error {
		t.Error("the activity ran")
		return nil
	})
	var failure *temporal.ApplicationError
	require.ErrorAs(t, err, &failure)
	require.Equal(t, "invalid_request", failure.Type())
	require.True(t, failure.NonRetryable())
	require.Empty(t, b.earmark.Verbs())
}

func TestOtherActivitiesAreLeftAlone(t *testing.T) {
	b := setup(t)
	b.guarded = false
	require.NoError(t, b.run(func(ctx context.Context) error {
		activityguard.Meter(ctx).Add(tokens(1)) // nobody reads it
		return nil
	}))
	require.Empty(t, b.earmark.Verbs())
}

func TestLeaseOutlastsTheActivity(t *testing.T) {
	b := setup(t)
	b.signals.On("SignalWorkflow", mock.Anything, mock.Anything, "", "commit", mock.Anything).Return(nil)
	var deadline time.Time
	require.NoError(t, b.run(func(ctx context.Context) error {
		deadline, _ = ctx.Deadline()
		activityguard.Meter(ctx).Set(tokens(1))
		return nil
	}))
	require.True(t, b.earmark.Reservations()[0].ExpiresAt.After(deadline))
}
