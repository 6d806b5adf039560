//go:build unix

package lifecycle_test

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	commonpb "go.temporal.io/api/common/v1"
	enumspb "go.temporal.io/api/enums/v1"
	"go.temporal.io/api/serviceerror"
	updatepb "go.temporal.io/api/update/v1"
	"go.temporal.io/api/workflowservice/v1"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/log"
	sdkworker "go.temporal.io/sdk/worker"
	"go.uber.org/goleak"
	"golang.org/x/sync/errgroup"

	"github.com/earmark-dev/earmark"
	"github.com/earmark-dev/earmark/activities"
	"github.com/earmark-dev/earmark/internal/ctxtime"
	"github.com/earmark-dev/earmark/internal/devstack/devstacktest"
	"github.com/earmark-dev/earmark/internal/handoff"
	"github.com/earmark-dev/earmark/internal/ledgertest"
	"github.com/earmark-dev/earmark/internal/lifecycle"
	"github.com/earmark-dev/earmark/internal/workflowstore"
	"github.com/earmark-dev/earmark/worker"
	"github.com/earmark-dev/earmark/workflows"
)

var stack = devstacktest.New(devstacktest.Temporal)

func TestMain(m *testing.M) { goleak.VerifyTestMain(stack.Main(m)) }

const (
	patience = 20 * time.Second // with a busy machine
	limit    = 1000             // tokens of the one budget
)

var errAway = errors.New("Postgres is away")

// rows is the ledger that a guard and a worker share: the model, one call at a time.
type rows struct {
	mu sync.Mutex
	*ledgertest.Ledger
	unnotified []string // ids of reservations that the reconciler is left to look at
}

// view is one process's way to the rows; a test may stand in it.
type view struct {
	ledgertest.Calls
	*rows
	before func(ctx context.Context, verb string) error
	after  func(verb string)
	blind  bool // finds no reservation, as if Postgres had lost them
}

func newView(r *rows) *view {
	v := &view{rows: r}
	v.Calls = ledgertest.Calls{Model: r.Ledger, Do: func(ctx context.Context, call ledgertest.Call, apply func() (earmark.Result, error)) (earmark.Result, error) {
		return v.do(ctx, call.Verb, apply)
	}}
	return v
}

func (v *view) do(ctx context.Context, verb string, apply func() (earmark.Result, error)) (earmark.Result, error) {
	if v.before != nil {
		if err := v.before(ctx, verb); err != nil {
			return earmark.Result{}, err
		}
	}
	if err := ctx.Err(); err != nil {
		return earmark.Result{}, err
	}
	if v.after != nil {
		defer v.after(verb)
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	return apply()
}

func (v *view) Reservation(ctx context.Context, tenant, id string) (*earmark.Reservation, error) {
	result, err := v.do(ctx, "reservation", func() (earmark.Result, error) {
		if v.blind {
			return earmark.Result{}, nil
		}
		reservation, err := v.Ledger.Reservation(ctx, tenant, id)
		return earmark.Result{Reservation: reservation}, err
	})
	return result.Reservation, err
}

func (v *view) MarkUnnotified(ctx context.Context, _, id string) error {
	_, err := v.do(ctx, "mark unnotified", func() (earmark.Result, error) {
		v.unnotified = append(v.unnotified, id)
		return earmark.Result{}, nil
	})
	return err
}

// env is a guard on a real Temporal, in a namespace of its own, with a worker that
// a test starts and stops.
type env struct {
	*testing.T
	ctx         context.Context
	client      client.Client
	rows        *rows
	here        *view // of the guard
	there       *view // of the worker
	coordinator *lifecycle.Coordinator
	deaf        bool // the worker delivers nothing to its coordinator, as if it ran in another process
}

// beside is a guard in one process with its worker; apart is one whose worker runs
// elsewhere. They admit by different ways.
func beside(t *testing.T) *env {
	t.Helper()
	s := apart(t)
	s.coordinator.Handoff = &handoff.Exchange{}
	return s
}

func apart(t *testing.T) *env {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	t.Cleanup(cancel)
	s := &env{T: t, ctx: ctx, rows: &rows{Ledger: ledgertest.New(time.Now)}}
	most := int64(limit)
	_, err := s.rows.CreateBudget(ctx, "acme", earmark.BudgetRequest{Scope: "acme", Unit: "tokens", Limit: &most}.WithDefaults(), earmark.ActorAPI)
	require.NoError(t, err)
	s.here, s.there = newView(s.rows), newView(s.rows)
	namespace := "of-" + earmark.NewReservationID()
	quiet := slog.New(slog.DiscardHandler)
	s.client, err = client.DialContext(ctx, client.Options{HostPort: stack.TemporalAddress(), Namespace: namespace, Logger: log.NewStructuredLogger(quiet)})
	require.NoError(t, err)
	t.Cleanup(s.client.Close)
	standard, err := s.client.WorkflowService().DescribeNamespace(ctx, &workflowservice.DescribeNamespaceRequest{Namespace: client.DefaultNamespace})
	require.NoError(t, err)
	_, err = s.client.WorkflowService().RegisterNamespace(ctx, &workflowservice.RegisterNamespaceRequest{
		Namespace: namespace, WorkflowExecutionRetentionPeriod: standard.GetConfig().GetWorkflowExecutionRetentionTtl()})
	require.NoError(t, err)
	require.Eventually(t, func() bool { // Temporal's own caches have to notice
		_, err := s.client.DescribeWorkflowExecution(ctx, "none", "")
		var notFound *serviceerror.NotFound
		return errors.As(err, &notFound)
	}, patience, 20*time.Millisecond)
	s.coordinator = &lifecycle.Coordinator{Client: s.client, Ledger: s.here, Namespace: namespace, Unindexed: true, Logger: quiet, Deadline: patience}
	return s
}

// work starts the worker and returns what stops it.
func (s *env) work() (stop func()) {
	w := sdkworker.New(s.client, workflows.TaskQueue, sdkworker.Options{
		StickyScheduleToStartTimeout: time.Second,
		WorkerStopTimeout:            patience, // what runs ends before the test does
	})
	heard := s.coordinator.Handoff
	if s.deaf {
		heard = nil
	}
	worker.Register(w, &activities.Reservations{Ledger: s.there, Handoff: heard}, &activities.Reconciler{})
	require.NoError(s, w.Start())
	s.Cleanup(w.Stop)
	return w.Stop
}

// both runs a test for a worker beside the guard, and apart from it.
func both(t *testing.T, test func(*env)) {
	t.Helper()
	for name, setup := range map[string]func(*testing.T) *env{"beside": beside, "apart": apart} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(setup(t))
		})
	}
}

func admissionOf(tokens int64) earmark.Admission {
	request := earmark.ReservationRequest{Scopes: []string{"acme/ml"}, Amounts: earmark.Amounts{"tokens": tokens}}.WithDefaults()
	id := earmark.NewReservationID()
	return earmark.Admission{ID: id, Tenant: "acme", Request: request, RequestHash: request.Hash(),
		WorkflowID: workflows.Prefix("").ReservationWorkflowID(id)}
}

// admit asks at this moment.
func (s *env) admit(a earmark.Admission) (earmark.Result, error) {
	a.AdmitBy = time.Now()
	return s.coordinator.Admit(s.ctx, a)
}

func (s *env) admitted(a earmark.Admission) {
	s.Helper()
	result, err := s.admit(a)
	require.NoError(s, err)
	require.Contains(s, []earmark.Outcome{earmark.OutcomeApplied, earmark.OutcomeSame}, result.Outcome)
	require.Equal(s, earmark.StateHeld, result.Reservation.State)
	require.Equal(s, a.ID, result.Reservation.ID)
}

func (s *env) row(a earmark.Admission) *earmark.Reservation {
	s.rows.mu.Lock()
	defer s.rows.mu.Unlock()
	reservation, err := s.rows.Reservation(s.ctx, a.Tenant, a.ID)
	require.NoError(s, err)
	return reservation
}

func (s *env) ending(a earmark.Admission) workflows.WorkflowResult {
	ctx, cancel := context.WithTimeout(s.ctx, patience)
	defer cancel()
	var ending workflows.WorkflowResult
	require.NoError(s, s.client.GetWorkflow(ctx, a.WorkflowID, "").Get(ctx, &ending))
	return ending
}

// signalled reports whether the workflow got a signal of that name.
func (s *env) signalled(a earmark.Admission, name string) bool {
	history := s.client.GetWorkflowHistory(s.ctx, a.WorkflowID, "", false, enumspb.HISTORY_EVENT_FILTER_TYPE_ALL_EVENT)
	for history.HasNext() {
		event, err := history.Next()
		require.NoError(s, err)
		if event.GetWorkflowExecutionSignaledEventAttributes().GetSignalName() == name {
			return true
		}
	}
	return false
}

func (s *env) eventTypes(a earmark.Admission) (types []enumspb.EventType) {
	s.Helper()
	history := s.client.GetWorkflowHistory(s.ctx, a.WorkflowID, "", false, enumspb.HISTORY_EVENT_FILTER_TYPE_ALL_EVENT)
	for history.HasNext() {
		event, err := history.Next()
		require.NoError(s, err)
		types = append(types, event.GetEventType())
	}
	return types
}

func (s *env) isOpen(a earmark.Admission) {
	s.Helper()
	description, err := s.client.DescribeWorkflowExecution(s.ctx, a.WorkflowID, "")
	require.NoError(s, err)
	require.Equal(s, enumspb.WORKFLOW_EXECUTION_STATUS_RUNNING, description.GetWorkflowExecutionInfo().GetStatus())
}

func settlementOf(a earmark.Admission) earmark.Transition {
	return earmark.Transition{ID: a.ID, Tenant: a.Tenant, Actor: earmark.ActorAPI}
}

var usage = earmark.Amounts{"tokens": 70}

func TestCoordinatorAdmitsAndSettles(t *testing.T) {
	t.Parallel()
	both(t, func(s *env) {
		s.work()
		one, two := admissionOf(100), admissionOf(200)
		s.admitted(one)
		s.admitted(two)
		s.admitted(one) // a second attempt is attached to the open workflow of the first

		result, accepted, err := s.coordinator.Commit(s.ctx, settlementOf(one), usage)
		require.NoError(s, err)
		require.False(s, accepted)
		require.Equal(s, earmark.OutcomeApplied, result.Outcome)
		require.Equal(s, usage, result.Reservation.Usage)
		require.Equal(s, earmark.StateCommitted, s.ending(one).State)

		release := settlementOf(two)
		release.Reason = "not called"
		result, accepted, err = s.coordinator.Release(s.ctx, release)
		require.NoError(s, err)
		require.False(s, accepted)
		require.Equal(s, earmark.StateReleased, result.Reservation.State)
		require.Equal(s, "not called", result.Reservation.Reason)

		// Once more: no workflow is open, and the ledger says what stands.
		result, accepted, err = s.coordinator.Commit(s.ctx, settlementOf(one), usage)
		require.NoError(s, err)
		require.False(s, accepted)
		require.Equal(s, earmark.OutcomeSame, result.Outcome)
	})
}

// Next to its worker a guard hears of the admission without asking Temporal.
func TestCoordinatorStartsEagerly(t *testing.T) {
	t.Parallel()
	s := beside(t)
	s.work()
	a := admissionOf(100)
	s.admitted(a)
	history := s.client.GetWorkflowHistory(s.ctx, a.WorkflowID, "", false, enumspb.HISTORY_EVENT_FILTER_TYPE_ALL_EVENT)
	require.True(t, history.HasNext())
	event, err := history.Next()
	require.NoError(t, err)
	require.True(t, event.GetWorkflowExecutionStartedEventAttributes().GetEagerExecutionAccepted())
}

func TestCoordinatorDenies(t *testing.T) {
	t.Parallel()
	both(t, func(s *env) {
		s.work()
		a := admissionOf(limit + 1)
		result, err := s.admit(a)
		require.NoError(s, err)
		require.Equal(s, earmark.OutcomeDenied, result.Outcome)
		require.Equal(s, int64(limit+1), result.Decision.Violations[0].Requested)
		require.Nil(s, result.Reservation)
		require.Equal(s, earmark.OutcomeDenied, s.ending(a).Outcome)

		a.Request.Amounts = earmark.Amounts{"tokens": 1} // a denial does not stick to its id
		a.RequestHash = a.Request.Hash()
		s.admitted(a)
	})
}

func TestCoordinatorTellsMismatch(t *testing.T) {
	t.Parallel()
	both(t, func(s *env) {
		s.work()
		a := admissionOf(100)
		s.admitted(a)
		a.Request.Amounts = earmark.Amounts{"tokens": 1}
		a.RequestHash = a.Request.Hash()
		result, err := s.admit(a)
		require.NoError(s, err)
		require.Equal(s, earmark.OutcomeMismatch, result.Outcome)
		require.Nil(s, result.Reservation)
	})
}

// A second request under the same id comes while the first is decided, and asks
// when that is over. It does not get the denial of the first one.
func TestCoordinatorTellsNobodyElsesDenial(t *testing.T) {
	t.Parallel()
	s := beside(t)
	s.deaf = true
	first := admissionOf(limit + 1)
	second := admissionOf(100)
	second.ID, second.WorkflowID = first.ID, first.WorkflowID
	begun, proceed := make(chan struct{}), make(chan struct{})
	var once sync.Once
	s.there.before = func(context.Context, string) error {
		once.Do(func() { close(begun); <-proceed })
		return nil
	}
	s.work()
	var group errgroup.Group
	group.Go(func() error {
		result, err := s.admit(first)
		// The second may have reserved by then; the key is that request's.
		if err == nil && result.Outcome != earmark.OutcomeDenied && result.Outcome != earmark.OutcomeMismatch {
			err = errors.New("the first was not denied but " + string(result.Outcome))
		}
		return err
	})
	<-begun
	time.AfterFunc(30*time.Millisecond, func() { close(proceed) }) // the second is attached, and has not asked yet
	result, err := s.admit(second)
	require.NoError(t, err)
	require.Equal(t, earmark.OutcomeApplied, result.Outcome)
	require.NoError(t, group.Wait())
	s.admitted(second)
}

// A no that Temporal did not take, since a signal came, is only a hint: the second
// decision counts.
func TestCoordinatorWaitsForADurableNo(t *testing.T) {
	t.Parallel()
	s := beside(t)
	a := admissionOf(limit + 1)
	tries := 0
	s.there.after = func(verb string) {
		if verb != "reserve" {
			return
		}
		if tries++; tries == 1 { // denied, and then there is room
			require.NoError(t, s.client.SignalWorkflow(s.ctx, a.WorkflowID, "", workflows.SignalRefresh, nil))
			more := int64(2 * limit)
			page, err := s.rows.Budgets(s.ctx, "acme", earmark.BudgetFilter{})
			require.NoError(t, err)
			_, err = s.rows.PatchBudget(s.ctx, "acme", page.Data[0].ID, earmark.BudgetPatch{Limit: &more}, earmark.ActorAPI)
			require.NoError(t, err)
		}
	}
	s.work()
	begun := time.Now()
	s.admitted(a)
	require.Less(t, time.Since(begun), s.coordinator.Deadline/2, "the yes was heard when it was said")
	require.Equal(t, 2, tries)
}

// Past the deadline the caller gets "unknown", and from then on nothing is
// reserved any more.
func TestCoordinatorDeadline(t *testing.T) {
	t.Parallel()
	unknown := func(s *env, a earmark.Admission) {
		s.Helper()
		begun := time.Now()
		result, err := s.admit(a)
		var e *earmark.Error
		require.ErrorAs(s, err, &e)
		require.Equal(s, earmark.CodeAdmissionUnknown, e.Code)
		require.Equal(s, a.ID, e.ReservationID)
		require.Positive(s, e.RetryAfter)
		require.Zero(s, result)
		require.Less(s, time.Since(begun), s.coordinator.Deadline+time.Second)
	}
	t.Run("no worker runs", func(t *testing.T) {
		t.Parallel()
		both(t, func(s *env) {
			s.coordinator.Deadline = 300 * time.Millisecond
			a := admissionOf(100)
			unknown(s, a)
			s.work()
			require.Equal(s, earmark.OutcomeTooLate, s.ending(a).Outcome)
			require.Nil(s, s.row(a))
		})
	})
	t.Run("Postgres hangs", func(t *testing.T) {
		t.Parallel()
		both(t, func(s *env) {
			s.coordinator.Deadline = 500 * time.Millisecond
			back := make(chan struct{})
			s.there.before = func(ctx context.Context, _ string) error {
				select {
				case <-back:
					return nil
				case <-ctx.Done():
					return ctx.Err()
				}
			}
			s.work()
			a := admissionOf(100)
			unknown(s, a)
			close(back)
			require.Equal(s, earmark.OutcomeTooLate, s.ending(a).Outcome)
			require.Nil(s, s.row(a))
		})
	})
	t.Run("the row cannot be read", func(t *testing.T) {
		t.Parallel()
		s := apart(t)
		s.here.before = func(context.Context, string) error { return errAway }
		s.work()
		unknown(s, admissionOf(100))
	})
	t.Run("the row is lost", func(t *testing.T) {
		t.Parallel()
		s := apart(t)
		s.here.blind = true
		s.work()
		result, err := s.admit(admissionOf(100))
		require.NoError(t, err)
		require.Equal(t, earmark.Result{Outcome: earmark.OutcomeUnknown}, result, "what the workflow knows is no success without a row")
	})
}

// Under overload a call waits for a place, and is refused with Retry-After before it has
// begun anything.
func TestCoordinatorIsBounded(t *testing.T) {
	t.Parallel()
	const places = 32
	s := apart(t)
	s.coordinator.Deadline = 4 * time.Second
	ctx, leave := context.WithCancel(s.ctx)
	var group errgroup.Group
	for range places {
		group.Go(func() error { // no worker runs
			_, err := s.coordinator.Admit(ctx, admissionOf(1))
			return err
		})
	}
	a := admissionOf(1)
	require.Eventually(t, func() bool {
		brief, cancel := context.WithTimeout(s.ctx, 10*time.Millisecond)
		defer cancel()
		_, err := s.coordinator.Admit(brief, admissionOf(1))
		return earmark.ErrorCode(err) == earmark.CodeUnavailable // turned away, and not "unknown"
	}, patience, 10*time.Millisecond, "all places are taken")
	_, err := s.admit(a)
	leave()
	require.Equal(t, earmark.CodeUnavailable, earmark.ErrorCode(err))
	var e *earmark.Error
	require.ErrorAs(t, err, &e)
	require.Positive(t, e.RetryAfter)
	_, err = s.client.DescribeWorkflowExecution(s.ctx, a.WorkflowID, "")
	var notFound *serviceerror.NotFound
	require.ErrorAs(t, err, &notFound, "nothing has begun")
	require.Error(t, group.Wait())
	s.coordinator.Deadline = patience // the worker finds the tasks of all of them before it
	s.work()
	s.admitted(admissionOf(1))
}

// The second attempt meets the workflow of the first, which finds its own time
// over, and then has one of its own.
func TestCoordinatorSecondAttempt(t *testing.T) {
	t.Parallel()
	both(t, func(s *env) {
		s.coordinator.Deadline = 200 * time.Millisecond
		a := admissionOf(100)
		_, err := s.admit(a)
		require.Equal(s, earmark.CodeAdmissionUnknown, earmark.ErrorCode(err))
		s.coordinator.Deadline = patience
		met := s.meeting(a)
		var group errgroup.Group
		group.Go(func() error {
			result, err := s.admit(a)
			if err == nil && result.Outcome != earmark.OutcomeApplied {
				err = errors.New(string(result.Outcome))
			}
			return err
		})
		select {
		case <-met:
		case <-s.ctx.Done():
			require.FailNow(s, "the second attempt has not met the workflow of the first")
		}
		s.work()
		require.NoError(s, group.Wait())
		require.Equal(s, earmark.StateHeld, s.row(a).State)
	})
}

// meeting returns a channel that is closed once the next call of admit has reached the admission's open workflow:
// by a start that attaches to it, or by an update that Temporal has for it.
func (s *env) meeting(a earmark.Admission) <-chan struct{} {
	met := make(chan struct{})
	update := &updatepb.UpdateRef{WorkflowExecution: &commonpb.WorkflowExecution{WorkflowId: a.WorkflowID}, UpdateId: "second attempt"}
	var once sync.Once // a further attempt is another update
	s.coordinator.Client = &proxy{Client: s.client, start: closeWhenStarted(met), firstUpdate: func(options *client.UpdateWorkflowOptions) {
		once.Do(func() {
			options.UpdateID = update.UpdateId
			go func() {
				for ctxtime.Sleep(s.ctx, time.Millisecond) {
					_, err := s.client.WorkflowService().PollWorkflowExecutionUpdate(s.ctx, &workflowservice.PollWorkflowExecutionUpdateRequest{
						Namespace: s.coordinator.Namespace, UpdateRef: update})
					if err == nil {
						close(met)
						return
					}
				}
			}()
		})
	}}
	return met
}

// Many at once with one key are one reservation, and each call gets it.
func TestCoordinatorManyAtOnce(t *testing.T) {
	t.Parallel()
	both(t, func(s *env) {
		s.work()
		a := admissionOf(limit)
		var group errgroup.Group
		for range 8 { // Temporal allows ten updates in flight
			group.Go(func() error {
				result, err := s.admit(a)
				if err == nil && (result.Reservation == nil || result.Reservation.State != earmark.StateHeld) {
					err = errors.New("it was not admitted but " + string(result.Outcome))
				}
				return err
			})
		}
		require.NoError(s, group.Wait())
	})
}

func TestCoordinatorReady(t *testing.T) {
	t.Parallel()
	s := apart(t)
	require.NoError(t, s.coordinator.Ready(s.ctx), "without the search attributes none is missed")
	s.coordinator.Unindexed = false
	err := s.coordinator.Ready(s.ctx)
	require.Equal(t, earmark.CodeUnavailable, earmark.ErrorCode(err))
	require.ErrorContains(t, err, "EarmarkExpiresAt, EarmarkScope, EarmarkState, EarmarkTenant")
	require.ErrorContains(t, err, "earmark migrate up")
	added, err := workflowstore.AddSearchAttributes(s.ctx, s.client, s.coordinator.Namespace)
	require.NoError(t, err)
	require.Len(t, added, 4)
	admission := admissionOf(1)
	_, err = s.client.ExecuteWorkflow(s.ctx, workflowstore.StartOptions(admission, time.Now(), "", false), workflows.ReservationType, workflows.ReservationInput{Admission: admission})
	require.NoError(t, err, "what is registered can be used at once")
	require.Eventually(t, func() bool { return s.coordinator.Ready(s.ctx) == nil }, patience, 50*time.Millisecond)
	added, err = workflowstore.AddSearchAttributes(s.ctx, s.client, s.coordinator.Namespace)
	require.NoError(t, err)
	require.Empty(t, added, "there is nothing to add twice")

	away, err := client.NewLazyClient(client.Options{HostPort: "127.0.0.1:1", Logger: log.NewStructuredLogger(slog.New(slog.DiscardHandler))})
	require.NoError(t, err)
	defer away.Close()
	ctx, cancel := context.WithTimeout(s.ctx, time.Second)
	defer cancel()
	s.coordinator.Client = away
	require.Equal(t, earmark.CodeUnavailable, earmark.ErrorCode(s.coordinator.Ready(ctx)))
}
