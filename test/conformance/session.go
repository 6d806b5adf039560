package conformance

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"
)

// call is a call as it arrived.
type call struct {
	verb   string
	path   string
	header http.Header
	body   []byte
	at     time.Time
}

// session is one run of a case by one client.
type session struct {
	Case Case

	upstream string // of Earmark; empty without one
	scope    string

	mu      sync.Mutex
	calls   []call
	sent    []string // what the provider got
	request struct { // of the last reservation
		Scopes   []string         `json:"scopes"`
		Amounts  map[string]int64 `json:"amounts"`
		OnExpiry string           `json:"on_expiry"`
	}
}

const scriptedID = "rsv_aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"

// newSession fills in $scope and $key: every run has its own.
func newSession(ctx context.Context, c Case, upstream string) (*session, error) {
	if c.Real && upstream == "" {
		return nil, errors.New("the case needs an Earmark: start the server with --upstream")
	}
	s := &session{upstream: upstream, scope: "conformance-" + strings.ToLower(rand.Text())}
	text, err := json.Marshal(c)
	if err != nil {
		return nil, err
	}
	filled := strings.NewReplacer("$scope", s.scope, "$key", "key-"+rand.Text()).Replace(string(text))
	if err := json.Unmarshal([]byte(filled), &s.Case); err != nil {
		return nil, err
	}
	if c.Real {
		budget := map[string]any{"scope": s.scope, "unit": "tokens", "limit": c.Budget}
		return s, s.ask(ctx, http.MethodPost, "/v1/budgets", budget, nil)
	}
	return s, nil
}

// ask calls Earmark without the faults.
func (s *session) ask(ctx context.Context, method, path string, body, target any) error {
	text, err := json.Marshal(body)
	if err != nil {
		return err
	}
	request, err := http.NewRequestWithContext(ctx, method, s.upstream+path, bytes.NewReader(text))
	if err != nil {
		return err
	}
	request.Header.Set("Content-Type", "application/json")
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return err
	}
	defer func() { _ = response.Body.Close() }()
	answer, err := io.ReadAll(response.Body)
	switch {
	case err != nil:
		return err
	case response.StatusCode > 299:
		return fmt.Errorf("%s %s: %d %s", method, path, response.StatusCode, answer)
	case target == nil:
		return nil
	}
	return json.Unmarshal(answer, target)
}

func (s *session) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	verb, answer := s.record(r, body)
	switch {
	case answer.Cut == "before":
		panic(http.ErrAbortHandler)
	case answer.Hang:
		<-r.Context().Done()
		return
	}
	got := s.scripted(verb, answer)
	if s.Case.Real && answer.Status == 0 {
		for range map[bool]int{false: 1, true: 2}[answer.Duplicate] {
			if got, err = s.forward(r, body); err != nil {
				panic(http.ErrAbortHandler)
			}
		}
	}
	pause(r.Context(), time.Duration(answer.DelayMS)*time.Millisecond)
	if answer.Cut == "after" {
		panic(http.ErrAbortHandler)
	}
	write(w, got, answer.Cut == "middle")
}

// record notes a call and returns what happens to it.
func (s *session) record(r *http.Request, body []byte) (verb string, answer Answer) {
	verb = verbOf(r)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.calls = append(s.calls, call{verb: verb, path: r.URL.Path, header: r.Header.Clone(), body: body, at: time.Now()})
	if verb == "reserve" || verb == "charge" {
		_ = json.Unmarshal(body, &s.request) // a body that is not JSON fails the check of the calls
		if s.request.Amounts == nil {        // it has an estimate, from which Earmark computes them
			s.request.Amounts = map[string]int64{"tokens": 100}
		}
	}
	nth := 0
	for _, call := range s.calls {
		if call.verb == verb {
			nth++
		}
	}
	return verb, answerOf(s.Case.Answers[verb], nth)
}

// answerOf returns the answer to the nth call, from 1; the last one stands for all later calls.
func answerOf(answers []Answer, nth int) (answer Answer) {
	for _, answer = range answers {
		if nth -= max(1, answer.Times); nth <= 0 {
			break
		}
	}
	return answer
}

// verbOf is short for the calls of a guard, and otherwise the method, path and query.
func verbOf(r *http.Request) string {
	parts := strings.Split(strings.Trim(r.URL.Path, "/"), "/") // v1, reservations, id, verb
	if r.Method == http.MethodPost && parts[0] == "v1" {
		switch {
		case len(parts) == 4 && parts[1] == "reservations":
			return parts[3]
		case r.URL.Path == "/v1/reservations":
			return "reserve"
		case r.URL.Path == "/v1/usage":
			return "charge"
		case r.URL.Path == "/v1/decisions":
			return "decide"
		}
	}
	verb := r.Method + " " + r.URL.EscapedPath()
	if query := r.URL.Query().Encode(); query != "" {
		verb += "?" + query
	}
	return verb
}

// reply is an answer that is ready to write.
type reply struct {
	status int
	header map[string]string
	body   []byte
}

// scripted makes the answer of a case.
func (s *session) scripted(verb string, answer Answer) reply {
	got := reply{status: answer.Status, header: map[string]string{}}
	var value any
	switch {
	case answer.Problem != nil:
		problem := map[string]any{"type": fmt.Sprintf("urn:earmark:problem:%v", answer.Problem["code"]), "title": "A title", "status": answer.Status, "detail": ""}
		for name, member := range answer.Problem {
			problem[name] = member
		}
		value = problem
		got.header["Content-Type"] = "application/problem+json"
	case answer.Text != nil:
		got.body = []byte(*answer.Text)
		got.header["Content-Type"] = "text/html"
	case answer.Body != nil:
		value = answer.Body
	default:
		value = s.success(verb, &got)
	}
	if value != nil {
		got.body, _ = json.Marshal(value) // made of what was JSON
	}
	for name, text := range answer.Headers {
		got.header[name] = text
	}
	return got
}

// success is what Earmark would answer, as far as clients read it.
func (s *session) success(verb string, got *reply) any {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now().UTC()
	r := map[string]any{
		"id": scriptedID, "state": "held", "scopes": s.request.Scopes, "amounts": s.request.Amounts, "usage": nil, "overage": nil,
		"shortfall": nil, "late": false, "estimated": false, "over_limit": false, "created_at": now, "expires_at": now.Add(time.Minute),
		"settled_at": nil, "overdue": false, "orphan": false, "on_expiry": s.request.OnExpiry, "reason": "", "metadata": map[string]string{},
		"workflow_id": "reservation-" + scriptedID, "ui_url": "", "budgets": []any{},
	}
	status := http.StatusOK
	switch verb {
	case "reserve":
		status = http.StatusCreated
	case "charge":
		status = http.StatusCreated
		r["state"], r["usage"] = "committed", s.request.Amounts
	case "commit":
		var sent struct {
			Usage map[string]int64 `json:"usage"`
		}
		_ = json.Unmarshal(s.calls[len(s.calls)-1].body, &sent)
		r["state"], r["usage"] = "committed", sent.Usage
	case "release":
		r["state"] = "released"
	case "extend":
	case "decide":
		got.status = max(got.status, status)
		return map[string]any{"admitted": true, "violations": []any{}, "retryable": false}
	default:
		got.status = http.StatusNotImplemented
		return map[string]any{"detail": "the case has no answer to " + verb}
	}
	if got.status == 0 {
		got.status = status
	}
	return r
}

// forward passes a call on to Earmark, whether the client still waits or not.
func (s *session) forward(r *http.Request, body []byte) (reply, error) {
	target, err := url.JoinPath(s.upstream, r.URL.Path)
	if err != nil {
		return reply{}, err
	}
	request, err := http.NewRequestWithContext(context.WithoutCancel(r.Context()), r.Method, target, bytes.NewReader(body)) //nolint:gosec // the upstream is the tester's own
	if err != nil {
		return reply{}, err
	}
	request.URL.RawQuery = r.URL.RawQuery
	request.Header = r.Header.Clone()
	response, err := http.DefaultClient.Do(request) //nolint:gosec // the same
	if err != nil {
		return reply{}, err
	}
	defer func() { _ = response.Body.Close() }()
	answer, err := io.ReadAll(response.Body)
	got := reply{status: response.StatusCode, header: map[string]string{}, body: answer}
	for _, name := range []string{"Content-Type", "Retry-After", "Idempotency-Hit"} {
		if text := response.Header.Get(name); text != "" {
			got.header[name] = text
		}
	}
	return got, err
}

func write(w http.ResponseWriter, got reply, half bool) {
	w.Header().Set("Content-Type", "application/json")
	for name, text := range got.header {
		w.Header().Set(name, text)
	}
	if half {
		w.Header().Set("Content-Length", fmt.Sprint(len(got.body)))
		got.body = got.body[:len(got.body)/2]
	}
	w.WriteHeader(got.status)
	_, _ = w.Write(got.body)
	if half {
		_ = http.NewResponseController(w).Flush()
		panic(http.ErrAbortHandler)
	}
}

func pause(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}
