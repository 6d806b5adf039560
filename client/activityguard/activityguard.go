// Package activityguard guards Temporal activities that call a model. Its interceptor
// reserves before an activity runs, and afterwards signals the usage to the reservation's
// own workflow. Temporal keeps the signal even if no Earmark worker runs.
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
	// leaseMargin is how much longer than its activity a reservation is held, so that the
	// signal can arrive.
	leaseMargin = 10 * time.Second
	// settleLimit bounds the settlement, which continues after the activity has ended.
	settleLimit = 15 * time.Second
	// longestWait is the longest time after which a denied activity is tried again in a new
	// window. If the window starts later, the workflow decides.
	longestWait = time.Minute
)

// Options configure the interceptor. Earmark, Temporal and Request are required.
type Options struct {
	// Earmark is the client that reserves.
	Earmark *client.Client
	// Temporal is a client of the namespace of Earmark's workflows, which may differ from
	// that of the activities.
	Temporal temporalclient.Client
	// Request returns what to set aside for an activity of this type with these arguments,
	// and whether to guard it at all. OnExpiry is required, see client.Do. Without
	// TTLSeconds the reservation is held until the activity's own deadline.
	Request func(ctx context.Context, activityType string, args []any) (request earmark.ReservationRequest, guarded bool, err error)
	// ShowViolations adds the budgets that a denied activity does not fit into, with their
	// ids, scopes and balances, to the error's text and details. They then appear in the
	// workflow's history and to everyone who reads its failure. Without ShowViolations they
	// appear only in the log.
	ShowViolations bool
	// Logger receives denials and reservations that were left to their expiry; nil means
	// slog.Default().
	Logger *slog.Logger
}

// NewInterceptor returns an interceptor for worker.Options.Interceptors.
//
// A guarded activity counts its usage with Meter. When it ends, with or without an error,
// that usage is charged. If it counted nothing, the reservation is left to its expiry
// policy, unless the activity called NothingSent. Each attempt of an activity has its own
// reservation, because the attempt before may have spent.
//
// A denial fails the attempt with an application error of type "budget_exceeded", whose
// details are the violations if ShowViolations is set. If the request would fit without the
// holds, the error is retryable at the pace of the activity's retry policy, because a hold
// may be settled at any moment. If a new window begins within a minute, the error is
// retryable then. Every other denial is not retryable.
func NewInterceptor(options Options) interceptor.WorkerInterceptor {
	if options.Logger == nil {
		options.Logger = slog.Default()
	}
	return &workerInterceptor{options: options}
}

type meterKey struct{}

// Meter returns the meter of the guarded activity that ctx belongs to. Without a guarded
// activity it returns a meter that nobody reads.
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

// ExecuteActivity reserves, runs the activity, and settles by its meter.
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
	failed := true // until the activity returns: a panic is a failure
	// Deferred, because counted usage is spent even if the activity panics.
	defer func() { g.settle(ctx, reservation, meter, failed) }()
	result, err := g.Next.ExecuteActivity(context.WithValue(ctx, meterKey{}, meter), in)
	failed = err != nil
	return result, err
}

// settle signals the usage of the meter, or commits its response by the API. If it cannot settle, it logs that and leaves the
// reservation to its expiry policy; the activity's own result stands.
func (g *guard) settle(ctx context.Context, reservation *earmark.Reservation, meter *client.Meter, failed bool) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), settleLimit)
	defer cancel()
	usage, nothingSent := meter.Report(reservation.Amounts)
	spent := usage != nil && (!failed || slices.ContainsFunc(slices.Collect(maps.Values(usage)), func(n int64) bool { return n > 0 }))
	var err error
	switch response := meter.Response(); {
	case response.Given(): // signals carry amounts: a worker has no prices
		_, err = g.Earmark.CommitResponse(ctx, reservation.ID, response)
	case spent:
		err = g.signal(ctx, reservation, workflows.MessageCommit, workflows.CommitMessage{Usage: usage}, func() error {
			_, err := g.Earmark.Commit(ctx, reservation.ID, usage)
			return err
		})
	case nothingSent:
		const reason = "the activity sent nothing"
		err = g.signal(ctx, reservation, workflows.MessageRelease, workflows.ReleaseMessage{Reason: reason}, func() error {
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

// signal sends a message to the reservation's workflow, and Temporal keeps it until it is
// applied. If that workflow has ended, as after an expiry, or Temporal is away, signal
// sends the usage to the API.
func (g *guard) signal(ctx context.Context, reservation *earmark.Reservation, name string, message any, direct func() error) error {
	err := g.Temporal.SignalWorkflow(ctx, reservation.WorkflowID, "", name, message)
	if err == nil {
		return nil
	}
	var notFound *serviceerror.NotFound
	if !errors.As(err, &notFound) {
		g.Logger.WarnContext(ctx, "A reservation's workflow was not reached; settling by the API.", "reservation_id", reservation.ID, "error", err)
	}
	return direct()
}

// key returns the idempotency key of one attempt of one activity.
func key(info activity.Info) string {
	sum := sha256.Sum256(fmt.Appendf(nil, "%s\x00%s\x00%s\x00%s\x00%d",
		info.Namespace, info.WorkflowExecution.ID, info.WorkflowExecution.RunID, info.ActivityID, info.Attempt))
	return "activity-" + hex.EncodeToString(sum[:])
}

// leaseUntil returns the TTL, in seconds, with which the lease outlasts the activity, which
// Temporal ends at its deadline.
func leaseUntil(deadline time.Time) int64 {
	lease := time.Until(deadline) + leaseMargin
	return int64(min(max(lease, earmark.MinTTL), earmark.MaxTTL) / time.Second)
}

// refusal turns an error of Earmark into an error that Temporal retries if a retry can
// help.
func (g *guard) refusal(ctx context.Context, err error) error {
	var e *earmark.Error
	if !errors.As(err, &e) {
		return err
	}
	denied := e.Code == earmark.CodeBudgetExceeded
	retry, delay := e.Code == earmark.CodeUnavailable || e.Code == earmark.CodeRateLimited || e.Code == earmark.CodeAdmissionUnknown, e.RetryAfter
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
