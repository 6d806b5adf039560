// Package activityguard guards activities that call a model, for those who run
// their AI calls in Temporal already. Its interceptor reserves before an activity
// runs and signals the usage to the reservation's own workflow afterwards; the
// signal is kept by Temporal even when no Earmark worker runs.
package activityguard

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"time"

	"go.temporal.io/api/serviceerror"
	"go.temporal.io/sdk/activity"
	temporalclient "go.temporal.io/sdk/client"
	"go.temporal.io/sdk/interceptor"
	"go.temporal.io/sdk/temporal"

	"github.com/earmark-dev/earmark"
	"github.com/earmark-dev/earmark/client"
	"github.com/earmark-dev/earmark/client/internal/choice"
	"github.com/earmark-dev/earmark/workflows"
)

const (
	// leaseMargin is how much longer than its activity a reservation is held, for
	// the signal to arrive.
	leaseMargin = 10 * time.Second
	// settleLimit bounds the settlement, which the activity's own end does not cut.
	settleLimit = 15 * time.Second
	// longestWait is how long a denied activity waits for a new window; what is further
	// away is for the workflow to decide.
	longestWait = time.Minute
)

// Options say which activities are guarded, and how. Earmark, Temporal and Request
// are required.
type Options struct {
	// Earmark is where budget is reserved.
	Earmark *client.Client
	// Temporal is a client of the namespace that Earmark's workflows run in, which
	// need not be that of the activities.
	Temporal temporalclient.Client
	// Request says what to set aside for an activity, of its type and with its
	// arguments, and whether it is guarded at all. OnExpiry is required, see
	// client.Do. Without TTLSeconds the
	// reservation is held until the activity's own deadline.
	Request func(ctx context.Context, activityType string, args []any) (request earmark.ReservationRequest, guarded bool, err error)
	// ShowViolations puts the budgets that a denied activity does not fit into, with
	// their ids, scopes and balances, into the error's text and details, and so into
	// the workflow's history and to whoever reads its failure. Without it they are
	// logged alone.
	ShowViolations bool
	// Logger gets denials and reservations that were left to their expiry;
	// slog.Default() when nil.
	Logger *slog.Logger
}

// NewInterceptor returns an interceptor for worker.Options.Interceptors.
//
// A guarded activity counts what it uses with Meter. When it ends, with or
// without an error, that is charged. If it counted nothing, the reservation is
// left to its expiry policy, unless it said NothingSent. Each attempt of an
// activity has a reservation of its own, since the one before may have spent.
//
// A denial fails the attempt with an application error of type "budget_exceeded",
// with the violations as its details under ShowViolations. Where holds alone stand in
// the way it is retryable, at the pace of the activity's retry policy, since a hold may
// be settled at any moment; where a new window begins within a minute, then. Any other
// denial is not retryable.
func NewInterceptor(options Options) interceptor.WorkerInterceptor {
	if options.Logger == nil {
		options.Logger = slog.Default()
	}
	return &workerInterceptor{options: options}
}

type meterKey struct{}

// Meter returns the meter of the guarded activity that ctx belongs to. Outside of
// one it returns a meter that nobody reads.
func Meter(ctx context.Context) *client.Meter {
	if meter, ok := ctx.Value(meterKey{}).(*client.Meter); ok {
		return meter
	}
	return new(client.Meter)
}

type workerInterceptor struct {
	interceptor.WorkerInterceptorBase
	options Options
}

func (w *workerInterceptor) InterceptActivity(_ context.Context, next interceptor.ActivityInboundInterceptor) interceptor.ActivityInboundInterceptor {
	return &guard{ActivityInboundInterceptorBase: interceptor.ActivityInboundInterceptorBase{Next: next}, Options: w.options}
}

type guard struct {
	interceptor.ActivityInboundInterceptorBase
	Options
}

// ExecuteActivity reserves, runs the activity, and settles by what its meter says.
func (g *guard) ExecuteActivity(ctx context.Context, in *interceptor.ExecuteActivityInput) (any, error) {
	info := activity.GetInfo(ctx)
	request, guarded, err := g.Request(ctx, info.ActivityType.Name, in.Args)
	if err != nil {
		return nil, fmt.Errorf("what to reserve for activity %s: %w", info.ActivityType.Name, err)
	}
	if !guarded {
		return g.Next.ExecuteActivity(ctx, in)
	}
	if err := choice.CheckOnExpiry(request); err != nil {
		return nil, g.refusal(ctx, err)
	}
	if request.TTLSeconds == 0 {
		request.TTLSeconds = leaseUntil(info.Deadline)
	}
	reservation, err := g.Earmark.Reserve(ctx, key(info), request)
	if err != nil {
		return nil, g.refusal(ctx, err)
	}
	meter := new(client.Meter)
	failed := true // until the activity returns otherwise: a panic is a failure
	// Deferred, for what was counted is spent also when the activity panics.
	defer func() { g.settle(ctx, reservation, meter, failed) }()
	result, err := g.Next.ExecuteActivity(context.WithValue(ctx, meterKey{}, meter), in)
	failed = err != nil
	return result, err
}

// settle signals what the meter says. What cannot be settled is left to the
// reservation's expiry policy and logged; the activity's own result stands.
func (g *guard) settle(ctx context.Context, reservation *earmark.Reservation, meter *client.Meter, failed bool) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), settleLimit)
	defer cancel()
	usage, nothingSent := meter.Report(reservation.Amounts)
	spent := usage != nil && (!failed || slices.ContainsFunc(slices.Collect(maps.Values(usage)), func(n int64) bool { return n > 0 }))
	var err error
	switch {
	case spent:
		err = g.signal(ctx, reservation.ID, workflows.MessageCommit, workflows.CommitMessage{Usage: usage}, func() error {
			_, err := g.Earmark.Commit(ctx, reservation.ID, usage)
			return err
		})
	case nothingSent:
		const reason = "the activity sent nothing"
		err = g.signal(ctx, reservation.ID, workflows.MessageRelease, workflows.ReleaseMessage{Reason: reason}, func() error {
			_, err := g.Earmark.Release(ctx, reservation.ID, reason)
			return err
		})
	default:
		err = client.ErrUsageUnknown
	}
	if err != nil {
		g.Logger.WarnContext(ctx, "A reservation is left to its expiry policy.", "reservation_id", reservation.ID, "error", err)
	}
}

// signal sends a message to the reservation's workflow, which Temporal keeps until
// it is applied. If that workflow has ended, as it has after an expiry, the usage
// is late and goes to the API; so it does when Temporal is away.
func (g *guard) signal(ctx context.Context, id, name string, message any, direct func() error) error {
	err := g.Temporal.SignalWorkflow(ctx, workflows.ReservationWorkflowID(id), "", name, message)
	if err == nil {
		return nil
	}
	var notFound *serviceerror.NotFound
	if !errors.As(err, &notFound) {
		g.Logger.WarnContext(ctx, "A reservation's workflow was not reached; settling by the API.", "reservation_id", id, "error", err)
	}
	return direct()
}

// key names one attempt of one activity.
func key(info activity.Info) string {
	sum := sha256.Sum256(fmt.Appendf(nil, "%s\x00%s\x00%s\x00%s\x00%d",
		info.Namespace, info.WorkflowExecution.ID, info.WorkflowExecution.RunID, info.ActivityID, info.Attempt))
	return "activity-" + hex.EncodeToString(sum[:])
}

// leaseUntil returns how long to hold, in seconds, for the lease to outlast the
// activity, which Temporal ends at its deadline.
func leaseUntil(deadline time.Time) int64 {
	lease := time.Until(deadline) + leaseMargin
	return int64(min(max(lease, earmark.MinTTL), earmark.MaxTTL) / time.Second)
}

// refusal turns what Earmark answered into an error that Temporal retries where
// that helps.
func (g *guard) refusal(ctx context.Context, err error) error {
	var e *earmark.Error
	if !errors.As(err, &e) {
		return err
	}
	denied := e.Code == earmark.CodeBudgetExceeded
	retry, delay := e.Code == earmark.CodeUnavailable || e.Code == earmark.CodeAdmissionUnknown, e.RetryAfter
	switch decision := (earmark.Decision{Violations: e.Violations}); {
	case denied && e.Retryable && decision.HoldsAlone():
		retry, delay = true, 0
	case denied:
		retry = e.Retryable && e.RetryAfter <= longestWait
	}
	options := temporal.ApplicationErrorOptions{NonRetryable: !retry, NextRetryDelay: delay}
	if denied && !g.ShowViolations {
		g.Logger.InfoContext(ctx, "An activity was denied.", "error", err, "violations", e.Violations)
		return temporal.NewApplicationErrorWithOptions("the activity does not fit into its spending limit", string(e.Code), options)
	}
	options.Cause = err
	if denied {
		options.Details = []any{e.Violations}
	}
	return temporal.NewApplicationErrorWithOptions(e.Message, string(e.Code), options)
}
