//go:build unix

package conformance_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/earmark-dev/earmark"
	"github.com/earmark-dev/earmark/client"
	"github.com/earmark-dev/earmark/internal/stack"
	"github.com/earmark-dev/earmark/test/conformance"
)

func TestMain(m *testing.M) { os.Exit(stack.Main(m)) }

// serve starts the server of the cases beside an Earmark, if there is one, and returns its URL.
func serve(t *testing.T, upstream string) string {
	t.Helper()
	listener, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	require.NoError(t, err)
	base := "http://" + listener.Addr().String()
	handler, err := conformance.NewServer(base, upstream)
	require.NoError(t, err)
	server := conformance.NewHTTPServer(handler)
	go func() { _ = server.Serve(listener) }()
	t.Cleanup(func() { _ = server.Close() })
	return base
}

// post calls the control protocol.
func post(t *testing.T, url string, body, target any) {
	t.Helper()
	text, err := json.Marshal(body)
	require.NoError(t, err)
	request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, url, bytes.NewReader(text))
	require.NoError(t, err)
	response, err := http.DefaultClient.Do(request)
	require.NoError(t, err)
	defer func() { _ = response.Body.Close() }()
	answer, err := io.ReadAll(response.Body)
	require.NoError(t, err)
	require.Less(t, response.StatusCode, 300, string(answer))
	require.NoError(t, json.Unmarshal(answer, target))
}

// session is a run of a case as its runner sees it.
type session struct {
	ID     string                    `json:"id"`
	URL    string                    `json:"url"`
	Client conformance.ClientOptions `json:"client"`
	Steps  []conformance.Step        `json:"steps"`

	ProviderURL string                        `json:"provider_url"`
	Transport   *conformance.TransportOptions `json:"transport"`
}

func begin(t *testing.T, base, name string) session {
	t.Helper()
	var begun session
	post(t, base+"/control/sessions", map[string]string{"case": name}, &begun)
	return begun
}

func finish(t *testing.T, base string, begun session, results ...result) []string {
	t.Helper()
	var verdict struct {
		Failures []string `json:"failures"`
	}
	post(t, base+"/control/sessions/"+begun.ID+"/finish", map[string]any{"results": results}, &verdict)
	return verdict.Failures
}

func TestGoClient(t *testing.T) {
	t.Parallel()
	runGo(t, serve(t, ""), false)
}

func TestGoClientOnEarmark(t *testing.T) {
	t.Parallel()
	runGo(t, serve(t, stack.New(t, stack.Options{}).Serve().Ready().URL), true)
}

// The TypeScript client needs Node.js and npm, and the test fails without them.
func TestTypeScriptClient(t *testing.T) {
	t.Parallel()
	runScript(t, "typescript.sh", "test")
}

// The tests of the Python client need Python 3.11 with venv and pip. The test fails if one of them is missing from a Python that is there.
func TestPythonClient(t *testing.T) {
	t.Parallel()
	if _, err := exec.LookPath("python3"); err != nil {
		t.Skip("the Python client is NOT tested: there is no python3")
	}
	runScript(t, "python.sh")
}

// runScript runs the tests of a client in another language on the server of the cases, beside an Earmark.
func runScript(t *testing.T, script string, args ...string) {
	t.Helper()
	upstream := stack.New(t, stack.Options{}).Serve().Ready().URL
	base := serve(t, upstream)
	root, err := stack.ModuleRoot()
	require.NoError(t, err)
	cmd := exec.CommandContext(t.Context(), filepath.Join(root, "tools", script), args...)
	cmd.Env = append(os.Environ(), "EARMARK_CONFORMANCE_URL="+base, "EARMARK_TEST_URL="+upstream)
	output, err := cmd.CombinedOutput()
	require.NoError(t, err, "%s", output)
	t.Logf("%s", output[max(0, len(output)-300):])
}

func runGo(t *testing.T, base string, onEarmark bool) {
	t.Helper()
	cases, err := conformance.Cases()
	require.NoError(t, err)
	for _, c := range cases {
		if c.Real != onEarmark || c.Transport != nil {
			continue
		}
		t.Run(c.Name, func(t *testing.T) {
			t.Parallel()
			begun := begin(t, base, c.Name)
			r := newRunner(t, begun.URL, begun.Client)
			results := []result{}
			for _, step := range begun.Steps {
				results = append(results, r.run(t, step))
			}
			require.Empty(t, finish(t, base, begun, results...))
		})
	}
}

// A client that breaks a rule fails the case.
func TestWrongClientsAreNoticed(t *testing.T) {
	t.Parallel()
	base := serve(t, "")
	send := func(begun session, path, key, body string) {
		request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, begun.URL+path, strings.NewReader(body))
		require.NoError(t, err)
		request.Header = http.Header{"Accept": {"application/json"}, "Content-Type": {"application/json"}, "User-Agent": {"earmark-test"}, "Idempotency-Key": {key}}
		if response, err := http.DefaultClient.Do(request); err == nil {
			_ = response.Body.Close()
		}
	}
	const reservation = "/v1/reservations/rsv_1/"
	const unknown = "guard: a commit without an answer to the end is not known, and not released"
	const admission = "guard: a reservation whose answer was lost is the run's own"
	const transport = "transport: a JSON answer is charged what it says"
	success := result{"worked": 1, "value": result{"state": "committed"}}
	for name, test := range map[string]struct {
		of     string
		result result
		calls  func(session)
		want   string
	}{
		"no call":      {admission, success, func(session) {}, "reserve: 0 calls, want 2"},
		"a wrong word": {admission, result{"worked": 1, "value": result{"state": "held"}}, func(session) {}, `step 1.value.state: got "held", want "committed"`},
		"an unknown outcome called a success": {unknown, result{"worked": 1, "work_error": "the model failed"}, func(session) {},
			"step 1.unsettled: got null"},
		"an error where none belongs": {admission, result{"worked": 1, "error": result{"code": "x"}}, func(session) {}, `step 1: error: got {"code":"x"}, want none`},
		"a release after a commit": {unknown, success, func(s session) { send(s, reservation+"commit", "", "{}"); send(s, reservation+"release", "", "{}") },
			"a release after a commit"},
		"another key": {admission, success, func(s session) { send(s, "/v1/reservations", "a", "{}"); send(s, "/v1/reservations", "b", "{}") },
			"reserve: repeated with another body or key"},
		"no pause": {admission, success, func(s session) { send(s, "/v1/reservations", "a", "{}"); send(s, "/v1/reservations", "a", "{}") },
			"reserve: repeated after"},
		"a wrong charge": {transport, result{"status": 200}, func(s session) {
			send(s, "/v1/reservations", "a", "{}")
			send(s, reservation+"commit", "", `{"usage":{"tokens":19}}`)
		}, "commit body.usage.tokens: got 19, want 18"},
		"other bytes for the provider": {transport, result{"status": 200}, func(s session) {
			send(s, "/v1/reservations", "a", "{}")
			send(s, reservation+"commit", "", "{}")
			s.URL = s.ProviderURL
			send(s, "/v1/chat/completions", "", "{}")
		}, "call 1 of the provider: got {}, want {"},
		"no key": {admission, success, func(s session) { send(s, "/v1/reservations", "", "{}") }, "reserve: no Idempotency-Key"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			begun := begin(t, base, test.of)
			test.calls(begun)
			require.Contains(t, strings.Join(finish(t, base, begun, test.result), "\n"), test.want)
		})
	}
}

// result is what the client said, in the words of all languages.
type result map[string]any

type runner struct {
	client     *client.Client
	lastID     string
	lastBudget string
}

func newRunner(t *testing.T, url string, options conformance.ClientOptions) *runner {
	t.Helper()
	chosen := []client.Option{client.WithAPIKey(options.APIKey), client.WithLogger(slog.New(slog.DiscardHandler))}
	if options.MaxAttempts > 0 {
		chosen = append(chosen, client.WithMaxAttempts(options.MaxAttempts))
	}
	if options.SettleLimitMS > 0 {
		chosen = append(chosen, client.WithSettleLimit(time.Duration(options.SettleLimitMS)*time.Millisecond))
	}
	c, err := client.New(url, chosen...)
	require.NoError(t, err)
	return &runner{client: c}
}

func decode[T any](t *testing.T, text json.RawMessage) (value T) {
	t.Helper()
	if text != nil {
		require.NoError(t, json.Unmarshal(text, &value))
	}
	return value
}

func (r *runner) run(t *testing.T, step conformance.Step) result {
	t.Helper()
	if step.ID == "$id" {
		step.ID = r.lastID
	}
	if step.Budget == "$budget" {
		step.Budget = r.lastBudget
	}
	ctx := t.Context()
	switch step.Op {
	case "guard":
		return r.guard(t, step)
	case "commit":
		return r.settled(r.client.Commit(ctx, step.ID, decode[earmark.Amounts](t, step.Request)))
	case "commit_response":
		return r.settled(r.client.CommitResponse(ctx, step.ID, decode[earmark.Response](t, step.Request)))
	case "commit_estimate":
		return r.settled(r.client.CommitEstimate(ctx, step.ID, decode[earmark.Amounts](t, step.Request)))
	case "release":
		return r.settled(r.client.Release(ctx, step.ID, ""))
	}
	value, err := r.call(ctx, t, step)
	if err != nil {
		return result{"error": failure(err)}
	}
	switch made := value.(type) {
	case *earmark.Reservation:
		r.lastID = made.ID
	case *earmark.IssuedWebhook:
		r.lastID = made.ID
	case *earmark.Grant:
		r.lastID = made.ID
	case *earmark.Budget:
		r.lastBudget = made.ID
	}
	return result{"value": value}
}

func (r *runner) call(ctx context.Context, t *testing.T, step conformance.Step) (any, error) {
	t.Helper()
	switch step.Op {
	case "reserve":
		return r.client.Reserve(ctx, step.Key, decode[earmark.ReservationRequest](t, step.Request))
	case "decide":
		return r.client.Decide(ctx, decode[earmark.ReservationRequest](t, step.Request))
	case "charge":
		return r.client.ChargeUsage(ctx, step.Key, decode[earmark.UsageRequest](t, step.Request))
	case "correct":
		return r.client.Correct(ctx, step.ID, step.Key, decode[earmark.CorrectionRequest](t, step.Request))
	case "extend":
		asked := decode[struct {
			TTLSeconds int64 `json:"ttl_seconds"`
		}](t, step.Request)
		return r.client.Extend(ctx, step.ID, time.Duration(asked.TTLSeconds)*time.Second)
	case "reservation":
		return r.client.Reservation(ctx, step.ID)
	case "reservations":
		asked := decode[struct {
			Scope   string
			State   earmark.State
			Overdue bool
		}](t, step.Request)
		return r.client.Reservations(ctx, earmark.ReservationFilter{Scope: asked.Scope, State: asked.State, Overdue: asked.Overdue})
	case "budgets":
		asked := decode[struct {
			Covering, Cursor string
			Limit            int
		}](t, step.Request)
		return r.client.Budgets(ctx, earmark.BudgetFilter{Covering: asked.Covering, Cursor: asked.Cursor, Limit: asked.Limit})
	case "entries":
		asked := decode[struct {
			ReservationID string `json:"reservation_id"`
		}](t, step.Request)
		return r.client.Entries(ctx, earmark.EntryFilter{ReservationID: asked.ReservationID})
	case "prices":
		asked := decode[struct {
			Provider, Model string
			At              time.Time
			Version         int64
			Cursor          string
			Limit           int
		}](t, step.Request)
		return r.client.Prices(ctx, client.PriceFilter(asked))
	case "add_prices":
		return r.client.AddPrices(ctx, decode[client.PricesRequest](t, step.Request))
	case "explain_price":
		return r.client.ExplainPrice(ctx, decode[client.ExplainRequest](t, step.Request))
	case "create_budget":
		return r.client.CreateBudget(ctx, decode[earmark.BudgetRequest](t, step.Request))
	case "patch_budget":
		return r.client.PatchBudget(ctx, step.ID, decode[earmark.BudgetPatch](t, step.Request))
	case "create_grant":
		return r.client.CreateGrant(ctx, step.Budget, step.Key, decode[earmark.GrantRequest](t, step.Request))
	case "grants":
		return r.client.Grants(ctx, step.Budget, decode[earmark.PageFilter](t, step.Request))
	case "void_grant":
		return r.client.VoidGrant(ctx, step.Budget, step.ID, decode[earmark.ReasonRequest](t, step.Request).Reason)
	case "create_key":
		return r.client.CreateKey(ctx, decode[earmark.KeyRequest](t, step.Request), client.By{})
	case "rotate_key":
		asked := decode[struct {
			OverlapSeconds int64 `json:"overlap_seconds"`
		}](t, step.Request)
		return r.client.RotateKey(ctx, step.ID, time.Duration(asked.OverlapSeconds)*time.Second, client.By{})
	case "create_webhook":
		return r.client.CreateWebhook(ctx, decode[earmark.WebhookRequest](t, step.Request))
	case "webhooks":
		return r.client.Webhooks(ctx, decode[earmark.PageFilter](t, step.Request))
	case "webhook":
		return r.client.Webhook(ctx, step.ID)
	case "patch_webhook":
		return r.client.PatchWebhook(ctx, step.ID, decode[earmark.WebhookPatch](t, step.Request))
	case "delete_webhook":
		return r.client.DeleteWebhook(ctx, step.ID)
	case "rotate_webhook_secret":
		return r.client.RotateWebhookSecret(ctx, step.ID)
	case "test_webhook":
		return r.client.TestWebhook(ctx, step.ID)
	case "deliveries":
		return r.client.Deliveries(ctx, step.ID, decode[earmark.PageFilter](t, step.Request))
	case "replay_webhook":
		return r.client.ReplayWebhook(ctx, step.ID, decode[earmark.WebhookReplay](t, step.Request))
	}
	require.Fail(t, "there is no operation "+step.Op)
	return nil, nil
}

func (r *runner) settled(settled client.Settled, err error) result {
	got := result{"accepted": settled.Accepted}
	if settled.Reservation != nil {
		got["value"] = settled.Reservation
	}
	if err != nil {
		got["error"] = failure(err)
	}
	return got
}

var errCallerLeft = errors.New("the caller left")

func (r *runner) guard(t *testing.T, step conformance.Step) result {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	worked := 0
	var workErr error
	settled, err := r.client.DoStream(ctx, step.Key, decode[earmark.ReservationRequest](t, step.Request),
		func(ctx context.Context, _ *earmark.Reservation, meter *client.Meter) error {
			worked++
			workErr = work(ctx, cancel, step.Work, meter)
			return workErr
		})
	got := result{"worked": worked, "accepted": settled.Accepted, "caller_left": errors.Is(err, errCallerLeft)}
	if settled.Reservation != nil {
		got["value"] = settled.Reservation
	}
	var unsettled *client.UnsettledError
	if errors.As(err, &unsettled) {
		got["unsettled"] = unsettledResult(unsettled)
	}
	switch {
	case worked == 0:
		got["error"] = failure(err)
	case workErr != nil && errors.Is(err, workErr) && !errors.Is(err, errCallerLeft):
		got["work_error"] = workErr.Error()
	}
	return got
}

func unsettledResult(unsettled *client.UnsettledError) map[string]any {
	code := earmark.Code("")
	if !errors.Is(unsettled, client.ErrUsageUnknown) {
		code = earmark.ErrorCode(unsettled.Err)
	}
	return map[string]any{
		"reservation_id": unsettled.ReservationID, "verb": unsettled.Verb, "usage": unsettled.Usage, "on_expiry": unsettled.OnExpiry,
		"refused": unsettled.Refused(), "code": code, "usage_unknown": errors.Is(unsettled, client.ErrUsageUnknown), "message": unsettled.Error(),
	}
}

func work(ctx context.Context, leave context.CancelFunc, work *conformance.Work, meter *client.Meter) error {
	timer := time.NewTimer(time.Duration(work.TakesMS) * time.Millisecond)
	defer timer.Stop()
	<-timer.C
	for _, count := range work.Meter {
		if count.Add != nil {
			meter.Add(count.Add)
		}
		if count.Set != nil {
			meter.Set(count.Set)
		}
	}
	var err error
	if work.Fails != "" {
		err = errors.New(work.Fails)
	}
	if work.CallerLeaves {
		leave()
		<-ctx.Done()
		err = errCallerLeft
	}
	if work.NothingSent {
		err = client.NothingSent(err)
	}
	return err
}

func failure(err error) map[string]any {
	got := map[string]any{"kind": "other", "message": err.Error(), "denied": client.IsDenied(err)}
	var e *earmark.Error
	switch {
	case errors.Is(err, client.ErrKeyInUse):
		got["kind"] = "key_in_use"
	case errors.As(err, &e):
		got["kind"], got["code"], got["field"] = "earmark", e.Code, e.Field
		got["violations"], got["retryable"], got["retry_at"] = e.Violations, e.Retryable, e.RetryAt
		got["retry_after_seconds"] = int64(e.RetryAfter / time.Second)
		got["reservation"], got["reservation_id"] = e.Reservation, e.ReservationID
	}
	return got
}
