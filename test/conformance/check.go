package conformance

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"reflect"
	"sort"
	"strings"
	"time"
)

// The shortest pause between two attempts: half of the first pause, or three quarters of
// the first pause of an extension, less what a timer may be wrong by.
const (
	shortestGap       = 45 * time.Millisecond
	shortestExtendGap = 30 * time.Millisecond
)

// check returns what is wrong with a run; nothing if the client keeps the rules.
func (s *session) check(ctx context.Context, results []map[string]any) (wrong []string) {
	if s.Case.Transport != nil {
		s.awaitCalls(ctx)
	}
	s.mu.Lock()
	calls := append([]call(nil), s.calls...)
	s.mu.Unlock()
	if len(results) != len(s.Case.Steps) {
		return []string{fmt.Sprintf("the case has %d steps, and the client reported %d", len(s.Case.Steps), len(results))}
	}
	for i, step := range s.Case.Steps {
		for _, part := range []string{"error", "unsettled", "work_error"} {
			if _, wanted := step.Result[part]; !wanted && !isEmpty(results[i][part]) {
				wrong = append(wrong, fmt.Sprintf("step %d: %s: got %s, want none", i+1, part, show(results[i][part])))
			}
		}
		wrong = append(wrong, differences(fmt.Sprintf("step %d", i+1), step.Result, results[i])...)
	}
	wrong = append(wrong, s.checkCalls(calls)...)
	wrong = append(wrong, s.checkRules(calls)...)
	if s.Case.Transport != nil {
		wrong = append(wrong, s.checkSent()...)
	}
	if s.Case.Ledger != nil {
		wrong = append(wrong, s.checkLedger(ctx)...)
	}
	return wrong
}

func (s *session) checkCalls(calls []call) (wrong []string) {
	if s.Case.Calls == nil {
		return nil
	}
	rest := calls
	for _, want := range s.Case.Calls {
		n := 0
		for n < len(rest) && rest[n].verb == want.To && (want.Times == 0 || n < want.Times) {
			if want.Key != "" && rest[n].header.Get("Idempotency-Key") != want.Key {
				wrong = append(wrong, fmt.Sprintf("%s: the key is %q, want %q", want.To, rest[n].header.Get("Idempotency-Key"), want.Key))
			}
			if want.Body != nil {
				var body map[string]any
				if err := json.Unmarshal(rest[n].body, &body); err != nil {
					wrong = append(wrong, fmt.Sprintf("%s: %v", want.To, err))
				}
				wrong = append(wrong, differences(want.To+" body", want.Body, body)...)
			}
			if wait := time.Duration(want.WaitMS) * time.Millisecond; n > 0 && rest[n].at.Sub(rest[n-1].at) < wait {
				wrong = append(wrong, fmt.Sprintf("%s: %s between two calls, want at least %s", want.To, rest[n].at.Sub(rest[n-1].at), wait))
			}
			n++
		}
		if (want.Times > 0 && n != want.Times) || n < want.AtLeast || (want.AtMost > 0 && n > want.AtMost) {
			wrong = append(wrong, fmt.Sprintf("%s: %d calls, want %s", want.To, n, wantedTimes(want)))
		}
		rest = rest[n:]
	}
	if len(wrong) > 0 || len(rest) > 0 {
		wrong = append(wrong, fmt.Sprintf("the calls were %v", verbs(calls)))
	}
	return wrong
}

func wantedTimes(want WantedCalls) string {
	if want.Times > 0 {
		return fmt.Sprint(want.Times)
	}
	return fmt.Sprintf("%d to %d", want.AtLeast, want.AtMost)
}

// checkRules checks what holds in every case.
func (s *session) checkRules(calls []call) (wrong []string) {
	last := map[string]call{}
	for _, now := range calls {
		before, again := last[now.verb+now.path]
		last[now.verb+now.path] = now
		if again && len(s.Case.Steps) == 1 {
			gap := shortestGap
			if now.verb == "extend" {
				gap = shortestExtendGap
			}
			if now.at.Sub(before.at) < gap {
				wrong = append(wrong, fmt.Sprintf("%s: repeated after %s", now.verb, now.at.Sub(before.at)))
			}
			if !bytes.Equal(now.body, before.body) || now.header.Get("Idempotency-Key") != before.header.Get("Idempotency-Key") {
				wrong = append(wrong, now.verb+": repeated with another body or key")
			}
		}
		_, committed := last["commit"+strings.TrimSuffix(now.path, "release")+"commit"]
		if now.verb == "release" && committed && len(s.Case.Steps) == 1 {
			wrong = append(wrong, "a release after a commit")
		}
		wrong = append(wrong, s.checkHeader(now)...)
	}
	return wrong
}

func (s *session) checkHeader(c call) (wrong []string) {
	want := map[string]string{"Accept": "application/json", "Authorization": ""}
	if key := s.Case.Client.APIKey; key != "" {
		want["Authorization"] = "Bearer " + key
	}
	if len(c.body) > 0 {
		want["Content-Type"] = "application/json"
	}
	for name, text := range want {
		if got := c.header.Get(name); got != text {
			wrong = append(wrong, fmt.Sprintf("%s: the header %s is %q, want %q", c.verb, name, got, text))
		}
	}
	if agent := c.header.Get("User-Agent"); !strings.HasPrefix(agent, "earmark-") {
		wrong = append(wrong, fmt.Sprintf("%s: User-Agent %q does not begin with earmark-", c.verb, agent))
	}
	if (c.verb == "reserve" || c.verb == "charge" || c.verb == "corrections") && c.header.Get("Idempotency-Key") == "" {
		wrong = append(wrong, c.verb+": no Idempotency-Key")
	}
	return wrong
}

func (s *session) checkLedger(ctx context.Context) (wrong []string) {
	var budgets struct {
		Data []struct {
			Balance struct {
				Reserved  int64 `json:"reserved"`
				Committed int64 `json:"committed"`
			} `json:"balance"`
		} `json:"data"`
	}
	var reservations struct {
		Data []struct {
			State string `json:"state"`
		} `json:"data"`
	}
	if err := s.ask(ctx, http.MethodGet, "/v1/budgets?scope="+s.scope, nil, &budgets); err != nil {
		return []string{err.Error()}
	}
	if err := s.ask(ctx, http.MethodGet, "/v1/reservations?scope="+s.scope, nil, &reservations); err != nil {
		return []string{err.Error()}
	}
	if len(budgets.Data) != 1 {
		return []string{fmt.Sprintf("there are %d budgets", len(budgets.Data))}
	}
	got := Ledger{Reserved: budgets.Data[0].Balance.Reserved, Committed: budgets.Data[0].Balance.Committed, States: []string{}}
	for _, r := range reservations.Data {
		got.States = append(got.States, r.State)
	}
	if !reflect.DeepEqual(got, *s.Case.Ledger) {
		wrong = append(wrong, fmt.Sprintf("the ledger has %+v, want %+v", got, *s.Case.Ledger))
	}
	return wrong
}

// differences compares what is wanted with what came; want may leave fields out. A null is
// wanted where nothing may be, and NAME_has wants text within NAME.
func differences(at string, want, got any) (wrong []string) {
	switch want := want.(type) {
	case nil:
		if !isEmpty(got) {
			return []string{fmt.Sprintf("%s: got %s, want nothing", at, show(got))}
		}
		return nil
	case map[string]any:
		object, ok := got.(map[string]any)
		if !ok {
			return []string{fmt.Sprintf("%s: got %s, want %s", at, show(got), show(want))}
		}
		names := make([]string, 0, len(want))
		for name := range want {
			names = append(names, name)
		}
		sort.Strings(names)
		for _, name := range names {
			if plain, has := strings.CutSuffix(name, "_has"); has {
				text, _ := object[plain].(string)
				if part, _ := want[name].(string); !strings.Contains(text, part) {
					wrong = append(wrong, fmt.Sprintf("%s.%s: %q lacks %q", at, plain, text, part))
				}
				continue
			}
			wrong = append(wrong, differences(at+"."+name, want[name], object[name])...)
		}
		return wrong
	case []any:
		list, ok := got.([]any)
		if !ok || len(list) != len(want) {
			return []string{fmt.Sprintf("%s: got %s, want %s", at, show(got), show(want))}
		}
		for i := range want {
			wrong = append(wrong, differences(fmt.Sprintf("%s[%d]", at, i), want[i], list[i])...)
		}
		return wrong
	}
	if !reflect.DeepEqual(want, got) {
		return []string{fmt.Sprintf("%s: got %s, want %s", at, show(got), show(want))}
	}
	return nil
}

func isEmpty(value any) bool {
	switch value := value.(type) {
	case nil:
		return true
	case map[string]any:
		return len(value) == 0
	case []any:
		return len(value) == 0
	}
	return reflect.ValueOf(value).IsZero()
}

func show(value any) string {
	text, err := json.Marshal(value)
	if err != nil {
		return fmt.Sprint(value)
	}
	return string(text)
}

func verbs(calls []call) []string {
	all := make([]string, 0, len(calls))
	for _, c := range calls {
		all = append(all, c.verb)
	}
	return all
}
