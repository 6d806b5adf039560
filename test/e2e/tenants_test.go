//go:build unix

package e2e_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/stretchr/testify/require"

	"github.com/earmark-dev/earmark"
	"github.com/earmark-dev/earmark/internal/keys"
	"github.com/earmark-dev/earmark/internal/stack"
)

// neighbour is what another tenant has. Its names are found in no answer by chance.
type neighbour struct {
	reservation, budget, override, grant, key, webhook string
	words                                              []string
}

func newNeighbour(tb testing.TB, s *stack.Stack, server *stack.Server) neighbour {
	tb.Helper()
	other := newTenant(tb, s, server, "globex-neighbour")
	ctx, limit := context.Background(), int64(100)
	budget, err := other.admin.CreateBudget(ctx, earmark.BudgetRequest{Scope: "neighbour-scope", Unit: "tokens", Limit: &limit})
	require.NoError(tb, err)
	r, err := other.reserve.Reserve(ctx, "chat-1", earmark.ReservationRequest{Scopes: []string{"neighbour-scope"}, Amounts: earmark.Amounts{"tokens": 60}, TTLSeconds: 3600})
	require.NoError(tb, err)
	override, err := other.admin.CreateOverride(ctx, budget.ID, "raise-1", earmark.OverrideRequest{Amount: 7, Reason: "neighbour-reason"})
	require.NoError(tb, err)
	grant, err := other.admin.CreateGrant(ctx, budget.ID, "top-up-1", earmark.GrantRequest{Amount: 7, Reason: "neighbour-reason"})
	require.NoError(tb, err)
	hook, err := other.admin.CreateWebhook(ctx, earmark.WebhookRequest{URL: "https://example.com/neighbour-hook"})
	require.NoError(tb, err)
	return neighbour{r.ID, budget.ID, override.ID, grant.ID, other.key, hook.ID, []string{"neighbour-reason", other.name, "neighbour-scope", "neighbour-hook", r.ID, budget.ID, other.key, hook.ID}}
}

// never returns an id of the same kind that nobody has.
func (n neighbour) never(id string) string {
	switch id {
	case n.reservation:
		return earmark.ReservationID("nobody", "never")
	case n.budget:
		return earmark.NewBudgetID()
	case n.webhook:
		return earmark.NewWebhookID()
	}
	return keys.New().ID
}

// idOf is the neighbour's id for a path of openapi.yaml; "" if the path takes none.
func (n neighbour) idOf(t *testing.T, path string) string {
	t.Helper()
	for prefix, id := range map[string]string{"/v1/reservations/{": n.reservation, "/v1/budgets/{": n.budget, "/v1/keys/{": n.key, "/v1/webhooks/{": n.webhook} {
		if strings.HasPrefix(path, prefix) {
			return id
		}
	}
	require.NotContains(t, path, "{", "which id of another tenant does it take?")
	return ""
}

// reply is an answer without its date.
type reply struct {
	status int
	header string
	body   string
}

func request(tb testing.TB, method, url, key, body string) reply {
	tb.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), callLimit)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, method, url, strings.NewReader(body))
	require.NoError(tb, err)
	request.Header.Set("Authorization", "Bearer "+key)
	if body != "" {
		request.Header.Set("Content-Type", "application/json")
	}
	if slices.ContainsFunc([]string{"/v1/usage", "/corrections", "/overrides", "/reset", "/grants"}, func(end string) bool { return method == http.MethodPost && strings.HasSuffix(url, end) }) {
		request.Header.Set("Idempotency-Key", "key-1")
	}
	response, err := http.DefaultClient.Do(request)
	require.NoError(tb, err)
	defer func() { _ = response.Body.Close() }()
	text, err := io.ReadAll(response.Body)
	require.NoError(tb, err)
	response.Header.Del("Date")
	return reply{response.StatusCode, fmt.Sprint(response.Header), string(text)}
}

// bodies are those of the operations that need one.
var bodies = map[string]string{
	"POST /v1/budgets":                                  `{"scope":"ml/u1","unit":"tokens","limit":1000}`,
	"PATCH /v1/budgets/{id}":                            `{"limit":1}`,
	"POST /v1/budgets/{id}/overrides":                   `{"amount":5,"reason":"why"}`,
	"POST /v1/budgets/{id}/overrides/{override_id}/end": `{"reason":"why"}`,
	"POST /v1/budgets/{id}/reset":                       `{"reason":"why"}`,
	"POST /v1/budgets/{id}/grants":                      `{"amount":5,"reason":"why"}`,
	"POST /v1/budgets/{id}/grants/{grant_id}/void":      `{"reason":"why"}`,
	"POST /v1/reservations":                             `{"scopes":["ml"],"amounts":{"tokens":1}}`,
	"POST /v1/decisions":                                `{"scopes":["ml"],"amounts":{"tokens":1}}`,
	"POST /v1/usage":                                    `{"scopes":["ml"],"amounts":{"tokens":1}}`,
	"POST /v1/reservations/{id}/corrections":            `{"amounts":{"tokens":-1},"reason":"why","operator":"alice"}`,
	"POST /v1/reservations/{id}/commit":                 `{"usage":{"tokens":1}}`,
	"POST /v1/reservations/{id}/extend":                 `{"ttl_seconds":60}`,
	"POST /v1/keys":                                     `{"role":"read"}`,
	"POST /v1/webhooks":                                 `{"url":"https://example.com/hooks"}`,
	"PATCH /v1/webhooks/{id}":                           `{"enabled":true}`,
	"POST /v1/webhooks/{id}/replay":                     `{"from":"2026-01-01T00:00:00Z"}`,
	"POST /v1/prices":                                   `{"entries":[{"provider":"openai","model":"gpt-5","rates":{"input":"0.000001"}}]}`,
	"POST /v1/prices/explain":                           `{"provider_usage":{"prompt_tokens":1,"completion_tokens":1,"total_tokens":2,"cost":0.01},"usage_format":"openrouter"}`,
}

// Every operation of openapi.yaml is called with a key of every role. With an id of another tenant it answers as with
// an id that never was, byte for byte; without an id it shows nothing of another tenant. Nothing of the other changes.
func TestOperationsByRoleAndTenant(t *testing.T) {
	t.Parallel()
	s := stack.New(t, stack.Options{Keys: true})
	server := s.Serve().Ready()
	other := newNeighbour(t, s, server)
	newTenant(t, s, server, "acme")
	roleKeys := map[earmark.Role]string{}
	for _, role := range earmark.Roles {
		roleKeys[role] = strings.TrimSpace(s.MustRun("key", "create", "--tenant", "acme", "--role", string(role), "--reason", "test"))
	}
	limit := `{"scope":"ml","unit":"tokens","limit":1000}`
	require.Equal(t, http.StatusCreated, request(t, http.MethodPost, server.URL+"/v1/budgets", roleKeys[earmark.RoleAdmin], limit).status)
	root, err := stack.ModuleRoot()
	require.NoError(t, err)
	document, err := openapi3.NewLoader().LoadFromFile(filepath.Join(root, "api", "openapi.yaml"))
	require.NoError(t, err)

	before := ledgerOf(t, s, "globex-neighbour")
	calls := 0
	for path, item := range document.Paths.Map() {
		for method, operation := range item.Operations() {
			needs, _ := operation.Extensions["x-earmark-role"].(string)
			if needs == "" || !strings.HasPrefix(path, "/v1/") { // the rest is of no tenant
				continue
			}
			name := method + " " + path
			id := other.idOf(t, path)
			for role, key := range roleKeys {
				calls++
				ask := func(id string) reply {
					got := request(t, method, server.URL+strings.NewReplacer("{id}", id, "{override_id}", other.override, "{grant_id}", other.grant).Replace(path), key, bodies[name])
					if id != "" {
						got.body = strings.ReplaceAll(got.body, id, "ID")
					}
					return got
				}
				got := ask(id)
				switch {
				case !role.Includes(earmark.Role(needs)):
					require.Equal(t, http.StatusForbidden, got.status, "%s with %s: %s", name, role, got.body)
				case id != "":
					require.Equal(t, http.StatusNotFound, got.status, "%s with %s: %s", name, role, got.body)
				default:
					require.Less(t, got.status, http.StatusBadRequest, "%s with %s: %s", name, role, got.body)
				}
				if id != "" {
					require.Equal(t, ask(other.never(id)), got, "%s with %s", name, role)
				}
				for _, word := range other.words {
					require.NotContains(t, got.body+got.header, word, "%s with %s", name, role)
				}
			}
		}
	}
	require.Greater(t, calls, 100)
	for _, query := range []string{"/v1/entries?reservation_id=" + other.reservation, "/v1/entries?budget_id=" + other.budget, "/v1/reservations?scope=neighbour-scope",
		"/v1/budgets?scope=neighbour-scope", "/v1/budgets?covering=neighbour-scope", "/v1/audit?subject=" + other.key, "/v1/audit?actor=key:" + other.key} {
		require.Contains(t, request(t, http.MethodGet, server.URL+query, roleKeys[earmark.RoleAdmin], "").body, `"data":[]`, query)
	}
	require.Equal(t, before, ledgerOf(t, s, "globex-neighbour"))
}

// ledgerOf is all that a tenant has in Postgres.
func ledgerOf(t *testing.T, s *stack.Stack, tenant string) (rows []string) {
	t.Helper()
	for _, table := range []string{"budgets", "reservations", "entries", "keys", "audit_log", "overrides", "grants", "webhooks"} {
		var text string
		require.NoError(t, s.Pool().QueryRow(t.Context(), "SELECT coalesce(jsonb_agg(to_jsonb(x) - 'checked_at' - 'last_used_at' ORDER BY id), '[]')::text FROM earmark."+table+" x WHERE tenant = $1", tenant).Scan(&text))
		require.NotEqual(t, "[]", text, table)
		rows = append(rows, text)
	}
	return rows
}

// BenchmarkMissingIDs alternates between an id of another tenant and one that never was, and reports the ratio of the
// median times of the two answers.
func BenchmarkMissingIDs(b *testing.B) {
	s := stack.New(b, stack.Options{Keys: true})
	server := s.Serve().Ready()
	other := newNeighbour(b, s, server)
	newTenant(b, s, server, "acme")
	key := strings.TrimSpace(s.MustRun("key", "create", "--tenant", "acme", "--role", "admin", "--reason", "test"))
	for _, call := range []struct{ name, method, path, id, body string }{
		{"show a reservation", http.MethodGet, "/v1/reservations/ID", other.reservation, ""},
		{"commit", http.MethodPost, "/v1/reservations/ID/commit", other.reservation, `{"usage":{"tokens":1}}`},
		{"release", http.MethodPost, "/v1/reservations/ID/release", other.reservation, ""},
		{"extend", http.MethodPost, "/v1/reservations/ID/extend", other.reservation, `{"ttl_seconds":60}`},
		{"adopt", http.MethodPost, "/v1/reservations/ID/adopt", other.reservation, ""},
		{"show a budget", http.MethodGet, "/v1/budgets/ID", other.budget, ""},
		{"change a budget", http.MethodPatch, "/v1/budgets/ID", other.budget, `{"limit":1}`},
		{"revoke a key", http.MethodPost, "/v1/keys/ID/revoke", other.key, ""},
	} {
		b.Run(strings.ReplaceAll(call.name, " ", "_"), func(b *testing.B) {
			took := [2][]time.Duration{}
			for b.Loop() {
				for i, id := range []string{call.id, other.never(call.id)} {
					begun := time.Now()
					got := request(b, call.method, server.URL+strings.Replace(call.path, "ID", id, 1), key, call.body)
					took[i] = append(took[i], time.Since(begun))
					require.Equal(b, http.StatusNotFound, got.status, got.body)
				}
			}
			for _, times := range took {
				slices.Sort(times)
			}
			theirs, missing := took[0][len(took[0])/2], took[1][len(took[1])/2]
			b.ReportMetric(float64(theirs.Microseconds()), "µs-theirs")
			b.ReportMetric(float64(missing.Microseconds()), "µs-missing")
			b.ReportMetric(float64(theirs)/float64(missing), "ratio")
		})
	}
}
