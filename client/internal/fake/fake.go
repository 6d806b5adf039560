// Package fake is an Earmark in memory, for the tests and examples of the client and its
// middlewares: one budget of tokens over every scope, with leases that end. Its own test
// compares its answers with the API's document.
package fake

import (
	"encoding/json"
	"fmt"
	"io"
	"math"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/earmark-dev/earmark"
	"github.com/earmark-dev/earmark/usage"
)

// Call is a call as Earmark received it.
type Call struct {
	Verb string // reserve, extend, commit, release or usage
	Key  string
	Body string
	At   time.Time
}

// Earmark answers calls. Set its fields before the first call; see Replace.
type Earmark struct {
	// Limit is the limit of the one budget, in tokens.
	Limit int64
	// RejectOverage is the budget's overage policy.
	RejectOverage bool
	// Slow is how long the answer to a verb takes after the verb took effect.
	Slow map[string]time.Duration
	// Intercept receives each call first; a handler that it returns answers in Earmark's
	// place. nth counts the calls of the verb from 1.
	Intercept func(verb string, nth int) http.HandlerFunc

	mu           sync.Mutex
	calls        []Call
	reservations map[string]*earmark.Reservation
}

// Serve serves the API on a free port.
func (e *Earmark) Serve() (url string, stop func()) {
	server := httptest.NewServer(e)
	return server.URL, server.Close
}

// Calls returns the calls so far.
func (e *Earmark) Calls() []Call {
	e.mu.Lock()
	defer e.mu.Unlock()
	return append([]Call(nil), e.calls...)
}

// Verbs returns the verbs of the calls so far.
func (e *Earmark) Verbs() []string {
	verbs := []string{}
	for _, call := range e.Calls() {
		verbs = append(verbs, call.Verb)
	}
	return verbs
}

// Count returns the number of calls of a verb.
func (e *Earmark) Count(verb string) int {
	n := 0
	for _, seen := range e.Verbs() {
		if seen == verb {
			n++
		}
	}
	return n
}

// Reservations returns every reservation; those whose lease has ended are expired.
func (e *Earmark) Reservations() []earmark.Reservation {
	e.mu.Lock()
	defer e.mu.Unlock()
	var all []earmark.Reservation
	for _, r := range e.reservations {
		expireIfDue(r)
		all = append(all, *r)
	}
	return all
}

// RoundTrip makes the Earmark an http.RoundTripper, without a network.
func (e *Earmark) RoundTrip(request *http.Request) (response *http.Response, err error) {
	if request.Body != nil {
		defer func() { _ = request.Body.Close() }()
	}
	if err := request.Context().Err(); err != nil {
		return nil, err
	}
	defer func() {
		if recovered := recover(); recovered == http.ErrAbortHandler { //nolint:errorlint // net/http compares it so
			response, err = nil, io.ErrUnexpectedEOF
			if request.Context().Err() != nil {
				err = request.Context().Err()
			}
		} else if recovered != nil {
			panic(recovered)
		}
	}()
	recorder := httptest.NewRecorder()
	e.ServeHTTP(recorder, request)
	return recorder.Result(), nil
}

func (e *Earmark) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	id, verb := target(r.URL.Path)
	intercept := e.record(verb, r.Header.Get("Idempotency-Key"), string(body))
	if intercept != nil {
		intercept(w, r)
		return
	}
	defer func() { time.Sleep(e.Slow[verb]) }()
	e.mu.Lock()
	defer e.mu.Unlock()
	if verb == "reserve" {
		e.reserve(w, r.Header.Get("Idempotency-Key"), body)
		return
	}
	held, ok := e.reservations[id]
	if !ok {
		Problem(http.StatusNotFound, earmark.CodeNotFound, "there is no such reservation")(w, r)
		return
	}
	expireIfDue(held)
	switch verb {
	case "extend":
		extend(w, held, body)
	case "commit":
		e.commit(w, held, body)
	case "release":
		release(w, held)
	}
}

func (e *Earmark) record(verb, key, body string) http.HandlerFunc {
	e.mu.Lock()
	e.calls = append(e.calls, Call{Verb: verb, Key: key, Body: body, At: time.Now()})
	nth := 0
	for _, call := range e.calls {
		if call.Verb == verb {
			nth++
		}
	}
	intercept := e.Intercept
	e.mu.Unlock()
	if intercept == nil {
		return nil
	}
	return intercept(verb, nth)
}

// Replace sets another Intercept between calls.
func (e *Earmark) Replace(intercept func(verb string, nth int) http.HandlerFunc) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.Intercept = intercept
}

func target(path string) (id, verb string) {
	parts := strings.Split(strings.Trim(path, "/"), "/") // v1, reservations, id, verb
	if len(parts) == 4 {
		return parts[2], parts[3]
	}
	if parts[len(parts)-1] == "reservations" {
		return "", "reserve"
	}
	return "", parts[len(parts)-1]
}

func (e *Earmark) reserve(w http.ResponseWriter, key string, body []byte) {
	var request earmark.ReservationRequest
	decode(body, &request)
	request = request.WithDefaults()
	if err := request.Validate(); err != nil {
		write(w, http.StatusBadRequest, problem{Code: earmark.CodeInvalidRequest, Detail: err.Error()})
		return
	}
	if e := request.Estimate; e != nil {
		request.Amounts = earmark.Amounts{"tokens": e.InputTokens + max(1, e.N)*(*e.MaxOutputTokens)}
	}
	id := earmark.ReservationID(earmark.DefaultTenant, key)
	if stands, ok := e.reservations[id]; ok {
		e.replay(w, stands)
		return
	}
	if asked := request.Amounts["tokens"]; asked > e.Limit-e.taken() {
		retryAt := e.firstLeaseEnd()
		retryable := asked <= e.Limit && retryAt != nil
		if retryable {
			w.Header().Set("Retry-After", strconv.Itoa(max(1, int(math.Ceil(time.Until(*retryAt).Seconds())))))
		} else {
			retryAt = nil
		}
		write(w, http.StatusPaymentRequired, problem{
			Code: earmark.CodeBudgetExceeded, Retryable: &retryable, RetryAt: retryAt,
			Detail: fmt.Sprintf("%s tokens do not fit into the budget on acme", earmark.FormatAmount(asked)),
			Violations: []earmark.Violation{{
				BudgetID: "bud_aaaaaaaaaaaaaaaaaaaaaaaaaa", Scope: "acme", Unit: "tokens", Limit: e.Limit,
				Reserved: e.taken(), Available: e.Limit - e.taken(), Requested: asked,
			}},
		})
		return
	}
	expires := time.Now().Add(request.TTL())
	r := &earmark.Reservation{
		ID: id, State: earmark.StateHeld, Scopes: request.Scopes, Amounts: request.Amounts, CreatedAt: time.Now(), ExpiresAt: &expires,
		OnExpiry: request.OnExpiry, Metadata: earmark.Metadata{}, WorkflowID: "reservation-" + id, Budgets: []earmark.ReservationBudget{},
	}
	if e.reservations == nil {
		e.reservations = map[string]*earmark.Reservation{}
	}
	e.reservations[id] = r
	write(w, http.StatusCreated, r)
}

func (e *Earmark) replay(w http.ResponseWriter, stands *earmark.Reservation) {
	expireIfDue(stands)
	switch stands.State {
	case earmark.StateHeld:
		w.Header().Set("Idempotency-Hit", "true")
		again := *stands
		again.Replayed = true
		write(w, http.StatusCreated, &again)
	case earmark.StateExpired:
		write(w, http.StatusGone, problem{Code: earmark.CodeReservationExpired, Detail: "the reservation has expired", Reservation: stands})
	default:
		write(w, http.StatusConflict, problem{Code: earmark.CodeAlreadySettled, Detail: "the reservation is settled", Reservation: stands})
	}
}

// firstLeaseEnd returns when the first lease of a hold ends; nil if there is no hold.
func (e *Earmark) firstLeaseEnd() (first *time.Time) {
	for _, r := range e.reservations {
		if r.State == earmark.StateHeld && (first == nil || r.ExpiresAt.Before(*first)) {
			first = r.ExpiresAt
		}
	}
	return first
}

func (e *Earmark) taken() int64 {
	taken := int64(0)
	for _, r := range e.reservations {
		expireIfDue(r)
		if r.Open() {
			taken += r.Amounts["tokens"]
		}
		taken += r.Usage["tokens"]
	}
	return taken
}

func extend(w http.ResponseWriter, held *earmark.Reservation, body []byte) {
	var request struct {
		TTLSeconds int64 `json:"ttl_seconds"`
	}
	decode(body, &request)
	switch held.State {
	case earmark.StateHeld:
		if to := time.Now().Add(time.Duration(request.TTLSeconds) * time.Second); to.After(*held.ExpiresAt) {
			held.ExpiresAt = &to
		}
		write(w, http.StatusOK, held)
	case earmark.StateExpired:
		write(w, http.StatusGone, problem{Code: earmark.CodeReservationExpired, Detail: "the lease has run out", Reservation: held})
	default:
		write(w, http.StatusConflict, problem{Code: earmark.CodeAlreadySettled, Detail: "the reservation is settled", Reservation: held})
	}
}

func (e *Earmark) commit(w http.ResponseWriter, held *earmark.Reservation, body []byte) {
	var request struct {
		Usage earmark.Amounts `json:"usage"`
		earmark.Response
		Estimated bool `json:"estimated"`
	}
	decode(body, &request)
	if request.Given() {
		used, err := usage.Normalize(usage.Format(request.UsageFormat), request.ProviderUsage)
		if err != nil {
			write(w, http.StatusBadRequest, problem{Code: earmark.CodeInvalidRequest, Field: "provider_usage", Detail: err.Error()})
			return
		}
		request.Usage = earmark.Amounts{"tokens": used.Input.Tokens + used.Output.Tokens}
	}
	switch {
	case !equalUnits(request.Usage, held.Amounts):
		write(w, http.StatusBadRequest, problem{Code: earmark.CodeInvalidRequest, Field: "usage", Detail: "usage: name exactly the reserved units"})
		return
	case held.State == earmark.StateCommitted && request.Usage.Equal(held.Usage):
	case held.State == earmark.StateCommitted, held.State == earmark.StateReleased:
		write(w, http.StatusConflict, problem{Code: earmark.CodeAlreadySettled, Detail: "the reservation is settled", Reservation: held})
		return
	case e.RejectOverage && request.Usage["tokens"] > held.Amounts["tokens"]:
		held.RejectedUsage, held.OnExpiry = request.Usage, earmark.OnExpiryReview
		write(w, http.StatusConflict, problem{Code: earmark.CodeOverageRejected, Detail: "more was used than reserved", Reservation: held})
		return
	default:
		settle(held, earmark.StateCommitted)
		held.Usage, held.Estimated = request.Usage, request.Estimated
	}
	write(w, http.StatusOK, held)
}

func release(w http.ResponseWriter, held *earmark.Reservation) {
	switch held.State {
	case earmark.StateHeld:
		settle(held, earmark.StateReleased)
	case earmark.StateCommitted:
		write(w, http.StatusConflict, problem{Code: earmark.CodeAlreadySettled, Detail: "the reservation is committed", Reservation: held})
		return
	case earmark.StateReleased, earmark.StateExpired, earmark.StateReview:
	}
	write(w, http.StatusOK, held)
}

func settle(held *earmark.Reservation, state earmark.State) {
	now := time.Now()
	held.Late = held.State == earmark.StateExpired
	held.State, held.SettledAt = state, &now
}

// expireIfDue expires a reservation as its workflow does, without delay.
func expireIfDue(r *earmark.Reservation) {
	if r.State == earmark.StateHeld && time.Now().After(*r.ExpiresAt) {
		settle(r, earmark.StateExpired)
	}
}

func equalUnits(a, b earmark.Amounts) bool {
	return strings.Join(a.Units(), " ") == strings.Join(b.Units(), " ")
}

type problem struct {
	Type        string               `json:"type"`
	Title       string               `json:"title"`
	Status      int                  `json:"status"`
	Detail      string               `json:"detail"`
	Code        earmark.Code         `json:"code"`
	Field       string               `json:"field,omitempty"`
	Violations  []earmark.Violation  `json:"violations,omitempty"`
	Retryable   *bool                `json:"retryable,omitempty"`
	RetryAt     *time.Time           `json:"retry_at,omitempty"`
	Reservation *earmark.Reservation `json:"reservation,omitempty"`
}

// Problem returns a handler that answers with an error, for an Intercept.
func Problem(status int, code earmark.Code, detail string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		if status == http.StatusServiceUnavailable {
			w.Header().Set("Retry-After", "1")
		}
		write(w, status, problem{Code: code, Detail: detail})
	}
}

// Unavailable returns a handler that answers 503.
func Unavailable() http.HandlerFunc {
	return Problem(http.StatusServiceUnavailable, earmark.CodeUnavailable, "Postgres or Temporal is away; try again")
}

// Hang never answers.
func Hang(_ http.ResponseWriter, r *http.Request) {
	<-r.Context().Done()
	panic(http.ErrAbortHandler)
}

// AnswerLost makes the call and then breaks the connection.
func (e *Earmark) AnswerLost(verb string) http.HandlerFunc {
	return func(_ http.ResponseWriter, r *http.Request) {
		e.mu.Lock()
		call := e.calls[len(e.calls)-1]
		switch id, _ := target(r.URL.Path); verb {
		case "reserve":
			e.reserve(httptest.NewRecorder(), call.Key, []byte(call.Body))
		case "commit":
			e.commit(httptest.NewRecorder(), e.reservations[id], []byte(call.Body))
		}
		e.mu.Unlock()
		panic(http.ErrAbortHandler)
	}
}

func write(w http.ResponseWriter, status int, value any) {
	w.Header().Set("Content-Type", "application/json")
	if p, ok := value.(problem); ok {
		p.Type, p.Title, p.Status = "urn:earmark:problem:"+string(p.Code), string(p.Code), status
		value = p
		w.Header().Set("Content-Type", "application/problem+json")
	}
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(value)
}

func decode(body []byte, into any) {
	if err := json.Unmarshal(body, into); err != nil {
		panic(fmt.Sprintf("fake: %q does not decode: %v", body, err))
	}
}
