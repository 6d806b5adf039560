package api

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"regexp"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/earmark-dev/earmark"
	"github.com/earmark-dev/earmark/internal/keys"
	"github.com/earmark-dev/earmark/internal/prices"
	"github.com/earmark-dev/earmark/internal/webhook"
	"github.com/earmark-dev/earmark/internal/workflowstore"
)

const (
	otherTenant = "globex"
	testKeyID   = "abcdefgh0129"
)

// withKeys makes the server ask for keys.
func withKeys(o *Options) { o.WithoutKeys = false }

// addKey makes a key that the ledger has, and returns its text.
func (f *fake) addKey(tenant string, role earmark.Role, adjust ...func(*earmark.Credential)) (token keys.Token) {
	token = keys.New()
	credential := &earmark.Credential{Hash: token.Hash(), Key: earmark.Key{ID: token.ID, Tenant: tenant, Role: role}}
	for _, change := range adjust {
		change(credential)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.credentials == nil {
		f.credentials = map[string]*earmark.Credential{}
	}
	f.credentials[token.ID] = credential
	return token
}

func boundTo(scopes ...string) func(*earmark.Credential) {
	return func(c *earmark.Credential) { c.Key.Scopes = scopes }
}

// with sends the key.
func with(token keys.Token) []string { return []string{"Authorization", "Bearer " + token.Text()} }

// operation is a call of the API that does its work where the fake plays along.
type operation struct {
	method, path, body string
	status             int
}

// operations are all that need a role, by method and route.
var operations = map[string]operation{
	"POST /v1/budgets":                                {"POST", "/v1/budgets", `{"scope":"acme/ml","unit":"tokens","limit":1}`, 201},
	"GET /v1/budgets":                                 {"GET", "/v1/budgets", "", 200},
	"GET /v1/budgets/:id":                             {"GET", "/v1/budgets/" + testBudgetID, "", 200},
	"GET /v1/budgets/:id/usage":                       {"GET", "/v1/budgets/" + testBudgetID + "/usage", "", 200},
	"PATCH /v1/budgets/:id":                           {"PATCH", "/v1/budgets/" + testBudgetID, `{"limit":1}`, 200},
	"DELETE /v1/budgets/:id":                          {"DELETE", "/v1/budgets/" + testBudgetID, "", 200},
	"GET /v1/budgets/:id/overrides":                   {"GET", "/v1/budgets/" + testBudgetID + "/overrides", "", 200},
	"POST /v1/budgets/:id/overrides":                  {"POST", "/v1/budgets/" + testBudgetID + "/overrides", overrideBodyText, 201},
	"POST /v1/budgets/:id/overrides/:override_id/end": {"POST", "/v1/budgets/" + testBudgetID + "/overrides/" + earmark.OverrideID(testBudgetID, "k") + "/end", `{"reason":"r"}`, 200},
	"POST /v1/budgets/:id/reset":                      {"POST", "/v1/budgets/" + testBudgetID + "/reset", `{"reason":"r"}`, 201},
	"GET /v1/budgets/:id/grants":                      {"GET", grantsPath, "", 200},
	"POST /v1/budgets/:id/grants":                     {"POST", grantsPath, grantBodyText, 201},
	"POST /v1/budgets/:id/grants/:grant_id/void":      {"POST", grantsPath + "/" + earmark.GrantID(testBudgetID, "k") + "/void", `{"reason":"r"}`, 200},
	"GET /v1/budgets/:id/windows":                     {"GET", "/v1/budgets/" + testBudgetID + "/windows", "", 200},
	"POST /v1/reservations":                           {"POST", "/v1/reservations", reserveBody, 201},
	"GET /v1/reservations":                            {"GET", "/v1/reservations", "", 200},
	"GET /v1/reservations/:id":                        {"GET", "/v1/reservations/" + testReservationID, "", 200},
	"POST /v1/reservations/:id/commit":                {"POST", settlePath("commit"), `{"usage":{"tokens":1}}`, 200},
	"POST /v1/reservations/:id/release":               {"POST", settlePath("release"), "", 200},
	"POST /v1/reservations/:id/extend":                {"POST", settlePath("extend"), `{"ttl_seconds":60}`, 200},
	"POST /v1/reservations/:id/adopt":                 {"POST", settlePath("adopt"), "", 200},
	"POST /v1/reservations/:id/corrections":           {"POST", settlePath("corrections"), correctBody, 200},
	"POST /v1/usage":                                  {"POST", "/v1/usage", `{"scopes":["acme/ml/u1"],"amounts":{"tokens":5}}`, 201},
	"POST /v1/decisions":                              {"POST", "/v1/decisions", reserveBody, 200},
	"GET /v1/entries":                                 {"GET", "/v1/entries", "", 200},
	"GET /v1/events":                                  {"GET", "/v1/events", "", 200},
	"GET /v1/webhooks":                                {"GET", webhooksPath, "", 200},
	"POST /v1/webhooks":                               {"POST", webhooksPath, `{"url":"https://example.com"}`, 201},
	"GET /v1/webhooks/:id":                            {"GET", webhookPath, "", 200},
	"PATCH /v1/webhooks/:id":                          {"PATCH", webhookPath, `{"enabled":true}`, 200},
	"DELETE /v1/webhooks/:id":                         {"DELETE", webhookPath, "", 200},
	"POST /v1/webhooks/:id/rotate-secret":             {"POST", webhookPath + "/rotate-secret", "", 200},
	"POST /v1/webhooks/:id/test":                      {"POST", webhookPath + "/test", "", 200},
	"GET /v1/webhooks/:id/deliveries":                 {"GET", webhookPath + "/deliveries", "", 200},
	"POST /v1/webhooks/:id/replay":                    {"POST", webhookPath + "/replay", `{"from":"2026-01-01T00:00:00Z"}`, 200},
	"GET /v1/overview":                                {"GET", "/v1/overview", "", 200},
	"GET /v1/whoami":                                  {"GET", "/v1/whoami", "", 200},
	"GET /v1/keys":                                    {"GET", "/v1/keys", "", 200},
	"POST /v1/keys":                                   {"POST", "/v1/keys", `{"role":"read"}`, 201},
	"POST /v1/keys/:id/rotate":                        {"POST", "/v1/keys/" + testKeyID + "/rotate", "", 201},
	"POST /v1/keys/:id/revoke":                        {"POST", "/v1/keys/" + testKeyID + "/revoke", "", 200},
	"GET /v1/audit":                                   {"GET", "/v1/audit", "", 200},
	"GET /v1/prices":                                  {"GET", "/v1/prices", "", 200},
	"POST /v1/prices":                                 {"POST", "/v1/prices", `{"entries":[{"provider":"openai","model":"gpt-5","rates":{"input":"0.000001"}}]}`, 201},
	"POST /v1/prices/explain":                         {"POST", "/v1/prices/explain", `{"provider_usage":{"prompt_tokens":1,"completion_tokens":1,"total_tokens":2,"cost":0.01},"usage_format":"openrouter"}`, 200},
}

func (o operation) header(token keys.Token) []string { return append(with(token), o.idempotency()...) }

func (o operation) idempotency() []string {
	if o.path != "/v1/usage" && o.path != settlePath("corrections") && !strings.HasSuffix(o.path, "/reset") && (o.method != "POST" || !strings.HasSuffix(o.path, "/overrides") && !strings.HasSuffix(o.path, "/grants")) {
		return nil
	}
	return []string{"Idempotency-Key", "k"}
}

// playingAlong is a ledger that has what every operation asks for.
func playingAlong() *fake {
	budget := testBudget()
	return &fake{
		preflight: fits(), result: earmark.Result{Outcome: earmark.OutcomeApplied, Reservation: reservationIn(earmark.StateHeld)},
		reservation: reservationIn(earmark.StateHeld), budget: budget, overview: earmark.Overview{Ages: []earmark.OverviewAge{}}, report: testReport(),
		target: &webhook.Target{URL: "https://127.0.0.1:1"}, // a test of it fails at once
		issued: &earmark.IssuedKey{Key: earmark.Key{ID: testKeyID, Tenant: otherTenant, Role: earmark.RoleRead, CreatedAt: testTime}, Secret: "emk_…"},
	}
}

// Every operation is tried with every role. A route that is not in the table, or has another role in the
// document, fails.
func TestEveryOperationNeedsItsRole(t *testing.T) {
	t.Parallel()
	s := &server{}
	documented := documentedRoles(t)
	for _, r := range s.routes(noRoute) {
		name := r.method + " " + r.path
		if !strings.HasPrefix(r.path, "/v1/") && name != "POST "+codecPath {
			require.Empty(t, r.role, name)
			require.Empty(t, documented[name], name)
			continue
		}
		require.Contains(t, earmark.Roles, r.role, "%s: which role does it need?", name)
		require.Equal(t, string(r.role), documented[name], "%s in openapi.yaml", name)
		try, found := operations[name]
		if r.path == codecPath { // of no tenant
			try, found = operation{"POST", codecPath, `{"payloads":[]}`, 200}, true
		}
		require.True(t, found, "%s is to be tried here", name)
		for _, role := range earmark.Roles {
			for _, method := range methodsOf(try.method) {
				f := playingAlong()
				b := setup(t, f, withKeys, withCodec)
				do := b.do
				if method == http.MethodHead { // which the document leaves out
					do = b.send
				}
				x := do(method, try.path, try.body, try.header(f.addKey(otherTenant, role))...)
				if role.Includes(r.role) {
					x.status(try.status)
					continue
				}
				x.status(http.StatusForbidden)
				require.Empty(t, f.names(), "%s with %s reached the ledger", name, role)
				if method != http.MethodHead {
					require.Equal(t, fmt.Sprintf("this needs a key with the role %s; the key has the role %s", r.role, role), x.problem(http.StatusForbidden, earmark.CodeForbidden).Detail)
				}
			}
		}
	}
}

func methodsOf(method string) []string {
	if method == http.MethodGet {
		return []string{http.MethodGet, http.MethodHead}
	}
	return []string{method}
}

func documentedRoles(t *testing.T) map[string]string {
	t.Helper()
	roles := map[string]string{}
	parameter := regexp.MustCompile(`\{(\w+)\}`)
	doc := loadDocument(t)
	for path, item := range doc.Paths.Map() {
		for method, operation := range item.Operations() {
			role, _ := operation.Extensions["x-earmark-role"].(string)
			name := method + " " + parameter.ReplaceAllString(path, ":$1")
			roles[name] = role
			if role == "" {
				require.NotNil(t, operation.Security, name)
				require.Empty(t, *operation.Security, "%s needs no key", name)
				continue
			}
			require.Nil(t, operation.Security, "%s needs a key, as the document says for all", name)
			require.NotNil(t, operation.Responses.Status(http.StatusUnauthorized), name)
			require.NotNil(t, operation.Responses.Status(http.StatusForbidden), name)
		}
	}
	return roles
}

// askedBook notes in the fake whose prices were asked for.
type askedBook struct {
	PriceBook
	fake *fake
}

func (b askedBook) Current(ctx context.Context, tenant string) (*prices.Prices, error) {
	b.fake.of(tenant)
	return b.PriceBook.Current(ctx, tenant)
}

// Every operation asks the ledger for the tenant of the key.
func TestEveryOperationIsOfTheKeysTenant(t *testing.T) {
	t.Parallel()
	for name, try := range operations {
		f := playingAlong()
		b := setup(t, f, withKeys, func(o *Options) { o.Prices = askedBook{prices.NewBook(noPrices{}), f} })
		b.do(try.method, try.path, try.body, try.header(f.addKey(otherTenant, earmark.RoleAdmin))...).status(try.status)
		if name == "GET /v1/whoami" { // which asks nobody
			continue
		}
		require.NotEmpty(t, f.tenants, name)
		require.Equal(t, []string{otherTenant}, slices.Compact(f.tenants), name)
	}
}

// What another tenant has is answered as what nobody has, byte for byte.
func TestAnotherTenantsIsAsIfItNeverWas(t *testing.T) {
	t.Parallel()
	never := map[string]string{testReservationID: earmark.ReservationID(otherTenant, "never"), testBudgetID: earmark.NewBudgetID(), testKeyID: keys.New().ID, testWebhookID: earmark.NewWebhookID()}
	for name, try := range operations {
		if !strings.Contains(name, ":id") {
			continue
		}
		f := playingAlong()
		f.owner, f.result = earmark.DefaultTenant, earmark.Result{Outcome: earmark.OutcomeUnknown}
		b := setup(t, f, withKeys)
		key := f.addKey(otherTenant, earmark.RoleAdmin)
		answers := map[string]string{}
		for there, missing := range never {
			if !strings.Contains(try.path, there) {
				continue
			}
			for _, id := range []string{there, missing} {
				x := b.do(try.method, strings.Replace(try.path, there, id, 1), try.body, try.header(key)...)
				x.problem(http.StatusNotFound, earmark.CodeNotFound)
				answers[fmt.Sprint(x.resp.Header)+strings.ReplaceAll(string(x.body), id, "ID")] = id
			}
		}
		require.Len(t, answers, 1, "%s: %v", name, answers)
	}
}

// A call without a key that works is 401, does nothing, and does not quote the key.
func TestCallsWithoutAKeyThatWorks(t *testing.T) {
	t.Parallel()
	now := time.Now()
	f := playingAlong()
	valid := f.addKey(otherTenant, earmark.RoleAdmin)
	revoked := f.addKey(otherTenant, earmark.RoleAdmin, func(c *earmark.Credential) { c.Key.RevokedAt = &now })
	expired := f.addKey(otherTenant, earmark.RoleAdmin, func(c *earmark.Credential) { c.Key.ExpiresAt = &now })
	disabled := f.addKey(otherTenant, earmark.RoleAdmin, func(c *earmark.Credential) { c.TenantDisabled = true })
	wrongSecret := func(of keys.Token) string { // with the right checksum
		other := keys.New()
		f.mu.Lock()
		defer f.mu.Unlock()
		f.credentials[other.ID] = &earmark.Credential{Key: f.credentials[of.ID].Key, Hash: of.Hash()}
		return other.Text()
	}
	text := valid.Text()
	for name, c := range map[string]struct {
		header []string
		detail string
	}{
		"none":                    {nil, "Authorization: a key is needed: send it as \"Authorization: Bearer emk_…\"; `earmark key create` makes one"},
		"empty":                   {[]string{"Authorization", ""}, "Authorization: the scheme is not supported: send \"Authorization: Bearer emk_…\""},
		"basic":                   {[]string{"Authorization", "Basic " + text}, "Authorization: the scheme is not supported: send \"Authorization: Bearer emk_…\""},
		"without scheme":          {[]string{"Authorization", text}, "Authorization: the scheme is not supported: send \"Authorization: Bearer emk_…\""},
		"no key":                  {[]string{"Authorization", "Bearer"}, "Authorization: the key is malformed: a key has the form emk_<id>_<secret>"},
		"malformed":               {[]string{"Authorization", "Bearer emk_abcdef"}, "Authorization: the key is malformed: a key has the form emk_<id>_<secret>"},
		"cut short":               {[]string{"Authorization", "Bearer " + text[:len(text)-1]}, "Authorization: the key is malformed: a key has the form emk_<id>_<secret>"},
		"two in one":              {[]string{"Authorization", "Bearer " + text + ", Bearer " + text}, "Authorization: the key is malformed: a key has the form emk_<id>_<secret>"},
		"mistyped":                {[]string{"Authorization", "Bearer " + mistype(text)}, "Authorization: the key is mistyped: the checksum does not fit"},
		"unknown":                 {with(keys.New()), "Authorization: the key is not known"},
		"wrong secret":            {[]string{"Authorization", "Bearer " + wrongSecret(valid)}, "Authorization: the key is not known"},
		"wrong secret, revoked":   {[]string{"Authorization", "Bearer " + wrongSecret(revoked)}, "Authorization: the key is not known"},
		"wrong secret, expired":   {[]string{"Authorization", "Bearer " + wrongSecret(expired)}, "Authorization: the key is not known"},
		"wrong secret, disabled":  {[]string{"Authorization", "Bearer " + wrongSecret(disabled)}, "Authorization: the key is not known"},
		"revoked":                 {with(revoked), "Authorization: the key is revoked"},
		"expired":                 {with(expired), "Authorization: the key has expired at " + now.UTC().Format(time.RFC3339)},
		"of a tenant that is off": {with(disabled), "Authorization: the tenant of the key is disabled"},
	} {
		b := setup(t, f, withKeys)
		for operationName, try := range operations {
			x := b.do(try.method, try.path, try.body, append(slices.Clone(c.header), try.idempotency()...)...)
			p := x.problem(http.StatusUnauthorized, earmark.CodeUnauthenticated)
			require.Equal(t, c.detail, p.Detail, name)
			require.Equal(t, "Authorization", p.Field, name)
			require.Equal(t, `Bearer realm="earmark"`, x.resp.Header.Get("WWW-Authenticate"), name)
			requireNoSecret(t, c.header, fmt.Sprint(string(x.body), x.resp.Header, b.log), name)
			require.Empty(t, f.names(), "%s: %s reached the ledger", name, operationName)
		}
	}
	b := setup(t, f, withKeys)
	b.do("GET", "/v1/budgets", "", "Authorization", "bearer  "+text).status(http.StatusOK)
}

// mistype swaps the last two characters of the secret that differ.
func mistype(text string) string {
	changed := []byte(text)
	for i := len(changed) - 1; ; i-- {
		if changed[i] != changed[i-1] {
			changed[i], changed[i-1] = changed[i-1], changed[i]
			return string(changed)
		}
	}
}

func requireNoSecret(t *testing.T, header []string, shown, name string) {
	t.Helper()
	for _, value := range header {
		if _, key, found := strings.Cut(value, keys.Prefix); found {
			require.NotContains(t, shown, key, name)
			if len(key) > 20 {
				require.NotContains(t, shown, key[13:], name)
			}
		}
	}
}

// A key in the URL is refused, also where no key is needed, and so are two keys.
func TestKeysInTheWrongPlace(t *testing.T) {
	t.Parallel()
	f := playingAlong()
	token := f.addKey(otherTenant, earmark.RoleAdmin)
	text := token.Text()
	b := setup(t, f, withKeys)
	for _, target := range []string{
		"/v1/budgets?key=" + text, "/v1/budgets?limit=" + text, "/v1/budgets?" + text, "/v1/budgets?api_key=abc", "/v1/budgets?access_token=",
		"/v1/budgets?token=x", "/v1/budgets?scope=emk_", "/v1/budgets?scope=acme&cursor=abc" + text, "/v1/budgets?scope=%65mk_" + text[4:],
		"/v1/budgets?%65mk_" + text[4:] + "=1", "/v1/budgets?limit=%zz&scope=" + text, "/v1/budgets/" + text, "/v1/nowhere?key=" + text, "/v1/" + text,
		"/?key=" + text, "/docs?x=" + text,
	} {
		x := b.send("GET", target, "", with(token)...).status(http.StatusBadRequest)
		require.Contains(t, string(x.body), "end up in logs", target)
		requireNoSecret(t, []string{text}, string(x.body)+b.log.String(), target)
	}
	p := b.do("GET", "/v1/budgets", "", append(with(token), with(token)...)...).problem(http.StatusBadRequest, earmark.CodeInvalidRequest)
	require.Equal(t, "Authorization: is given 2 times; send one key", p.Detail)
	require.Empty(t, f.names())

	// In a body it is refused as what it is there, and not quoted.
	x := b.do("POST", "/v1/decisions", `{"scopes":["`+text+`!"],"amounts":{"tokens":1},"`+text+`":1}`, with(token)...).status(http.StatusBadRequest)
	requireNoSecret(t, []string{text}, string(x.body)+b.log.String(), "body")
	require.Contains(t, string(x.body), "emk_"+token.ID+"_…")

	// A cursor is random text, in which the beginning of a key may occur.
	b.do("GET", "/v1/budgets?cursor=abcemk_def", "", with(token)...).status(http.StatusOK)
}

// What needs no key is answered without one, and a server without keys takes no notice of any.
func TestWithoutKeys(t *testing.T) {
	t.Parallel()
	f := playingAlong()
	keyed := setup(t, f, withKeys)
	for _, path := range []string{"/healthz", "/readyz", "/metrics"} {
		keyed.do("GET", path, "").status(http.StatusOK)
	}
	for _, path := range []string{"/", "/docs", "/openapi.yaml"} {
		recorder := httptest.NewRecorder()
		keyed.handler.ServeHTTP(recorder, newRequest("GET", path, ""))
		require.Equal(t, http.StatusOK, recorder.Code, path)
	}
	b := setup(t, f)
	for name, try := range operations {
		for _, header := range [][]string{nil, {"Authorization", "Bearer nonsense"}, with(keys.New())} {
			require.Equal(t, try.status, b.do(try.method, try.path, try.body, append(header, try.idempotency()...)...).resp.StatusCode, name)
		}
	}
	require.Equal(t, []string{earmark.DefaultTenant}, slices.Compact(f.tenants))
	require.Empty(t, f.lookups)
}

// A key that is bound to scopes acts on those and what is below, and sees nothing else.
func TestKeysBoundToScopes(t *testing.T) {
	t.Parallel()
	for name, scopes := range map[string][]string{"its own": {"acme/ml/u1"}, "above": {"acme"}, "several": {"globex", "acme/ml"}} {
		f := playingAlong()
		f.budget.Scope = "acme/ml/u1"
		b := setup(t, f, withKeys)
		key := f.addKey(otherTenant, earmark.RoleAdmin, boundTo(scopes...))
		for operationName, try := range operations {
			if operationName == "POST /v1/budgets" {
				try.body = `{"scope":"acme/ml/u1","unit":"tokens","limit":1}`
			}
			if wholeTenant(operationName) {
				continue
			}
			require.Equal(t, try.status, b.do(try.method, try.path, try.body, try.header(key)...).resp.StatusCode, "%s: %s", name, operationName)
		}
	}
	for name, scopes := range map[string][]string{"below": {"acme/ml/u1/x"}, "beside": {"acme/ml/u2"}, "the same beginning": {"acme/ml/u"}} {
		f := playingAlong()
		b := setup(t, f, withKeys)
		key := f.addKey(otherTenant, earmark.RoleAdmin, boundTo(scopes...))
		for operationName, try := range operations {
			if wholeTenant(operationName) {
				continue
			}
			x := b.do(try.method, try.path, try.body, try.header(key)...)
			if strings.Contains(operationName, ":id") {
				x.problem(http.StatusNotFound, earmark.CodeNotFound)
			} else {
				p := x.problem(http.StatusForbidden, earmark.CodeForbidden)
				require.Contains(t, p.Field, "scope", operationName)
				require.Contains(t, p.Detail, "it is bound to "+scopes[0]+" and what is below", "%s: %s", name, operationName)
			}
		}
		for _, called := range f.names() {
			require.Contains(t, []string{"Reservation", "Budget"}, called, "only what is needed to see the scopes was read")
		}
	}
}

// A list has what is within the scopes that the key is bound to: the query leaves out the rest.
func TestBoundKeysListWithinTheirScopes(t *testing.T) {
	t.Parallel()
	f := playingAlong()
	b := setup(t, f, withKeys, func(o *Options) { o.StuckFinder = &fakeFinder{found: workflowstore.Findings{}} })
	scopes := []string{"acme/ml", "globex"}
	for _, key := range []keys.Token{f.addKey(otherTenant, earmark.RoleAdmin, boundTo(scopes...)), f.addKey(otherTenant, earmark.RoleAdmin)} {
		for _, path := range []string{"/v1/budgets?covering=acme/ml/u1", "/v1/reservations?scope=acme", "/v1/reservations?stuck=true", "/v1/entries", "/v1/events", "/v1/overview"} {
			b.do("GET", path, "", with(key)...).status(http.StatusOK)
		}
		within := scopes
		scopes = nil
		require.Equal(t, []any{
			earmark.BudgetFilter{Covering: "acme/ml/u1", Within: within, Limit: earmark.DefaultPageSize},
			earmark.ReservationFilter{Scope: "acme", Within: within, Limit: earmark.DefaultPageSize},
			stuckCall{earmark.ReservationFilter{Stuck: true, Within: within, Limit: earmark.DefaultPageSize}, earmark.StuckIDs{}},
			earmark.EntryFilter{Within: within, Limit: earmark.DefaultPageSize},
			earmark.EventFilter{Within: within, Limit: earmark.DefaultPageSize},
			overviewCall{otherTenant, within},
		}, f.asked(6))
	}
}

// asked are the arguments of the last calls.
func (f *fake) asked(last int) (args []any) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, c := range f.calls[len(f.calls)-last:] {
		args = append(args, c.arg)
	}
	return args
}

// wholeTenant reports whether an operation is about everything that a tenant has, as far as the key may see it.
func wholeTenant(name string) bool {
	return slices.Contains([]string{"GET /v1/budgets", "GET /v1/reservations", "GET /v1/entries", "GET /v1/events", "GET /v1/overview", "GET /v1/whoami"}, name) ||
		strings.Contains(name, "/v1/keys") || strings.Contains(name, "/v1/audit") || strings.Contains(name, "/v1/webhooks") || strings.Contains(name, "/v1/prices")
}

// A reservation with one scope beyond those of the key is not the key's to settle; Temporal says which scopes
// it has where Postgres is away.
func TestBoundKeysSettleWhilePostgresIsAway(t *testing.T) {
	t.Parallel()
	away := earmark.Errorf(earmark.CodeUnavailable, "away")
	both := reservationIn(earmark.StateHeld)
	both.Scopes = []string{"acme/ml/u1", "models/large"}
	for name, c := range map[string]struct {
		err    error
		lost   *earmark.Reservation
		fault  error
		status int
	}{
		"Temporal knows it":       {away, reservationIn(earmark.StateHeld), nil, http.StatusOK},
		"it has a scope too many": {away, both, nil, http.StatusNotFound},
		"nobody knows it":         {nil, nil, nil, http.StatusNotFound},
		"Postgres is away":        {away, nil, nil, http.StatusServiceUnavailable},
		"Temporal is away too":    {away, nil, errors.New("away"), http.StatusServiceUnavailable},
		"Temporal alone is away":  {nil, nil, errors.New("away"), http.StatusServiceUnavailable},
	} {
		f := playingAlong()
		f.reservation, f.err = nil, c.err
		b := setup(t, f, withKeys, func(o *Options) {
			o.StuckFinder = &fakeFinder{lost: func() *earmark.Reservation { return c.lost }, lostErr: c.fault}
		})
		key := f.addKey(otherTenant, earmark.RoleSettle, boundTo("acme"))
		x := b.do("POST", settlePath("commit"), `{"usage":{"tokens":1}}`, with(key)...)
		require.Equal(t, c.status, x.resp.StatusCode, "%s: %s", name, x.body)
		require.Equal(t, c.status == http.StatusOK, f.count("Commit") == 1, name)
	}
}

// A person's remedies and the list of what is stuck need more than the route does.
func TestRemediesNeedTheRoleOperate(t *testing.T) {
	t.Parallel()
	for _, try := range []operation{
		{"POST", settlePath("commit"), `{"usage":{"tokens":1},"operator":"alice"}`, 200},
		{"POST", settlePath("release"), `{"operator":"alice"}`, 200},
		{"POST", settlePath("extend"), `{"ttl_seconds":60,"operator":"alice"}`, 200},
		{"GET", "/v1/reservations?stuck=true", "", 200},
	} {
		f := playingAlong()
		b := setup(t, f, withKeys, func(o *Options) { o.StuckFinder = &fakeFinder{found: workflowstore.Findings{}} })
		p := b.do(try.method, try.path, try.body, with(f.addKey(otherTenant, earmark.RoleReserve))...).problem(http.StatusForbidden, earmark.CodeForbidden)
		require.Contains(t, p.Detail, "the role operate; the key has the role reserve")
		require.Empty(t, f.names())
		b.do(try.method, try.path, try.body, with(f.addKey(otherTenant, earmark.RoleOperate))...).status(try.status)
	}
}

// The journal names the key, and a person beside it.
func TestTransitionsNameTheKey(t *testing.T) {
	t.Parallel()
	f := playingAlong()
	b := setup(t, f, withKeys)
	key := f.addKey(otherTenant, earmark.RoleOperate)
	b.do("POST", settlePath("commit"), `{"usage":{"tokens":1}}`, with(key)...).status(http.StatusOK)
	require.Equal(t, "key:"+key.ID, f.settlement.Actor.String())
	b.do("POST", settlePath("release"), `{"operator":"alice"}`, with(key)...).status(http.StatusOK)
	require.Equal(t, "operator:alice key:"+key.ID, f.settlement.Actor.String())
	b.do("POST", "/v1/usage", `{"scopes":["acme"],"amounts":{"tokens":5}}`, append(with(key), "Idempotency-Key", "k")...).status(http.StatusCreated)
	charge, _ := f.last().(earmark.Charge)
	require.Equal(t, "key:"+key.ID, charge.Actor.String())
	require.Equal(t, earmark.ReservationID(otherTenant, "k"), charge.ID)

	admin := f.addKey(otherTenant, earmark.RoleAdmin)
	for _, change := range []string{"POST /v1/budgets", "PATCH /v1/budgets/:id", "DELETE /v1/budgets/:id"} {
		try := operations[change]
		f.by = earmark.Actor{}
		b.do(try.method, try.path, try.body, with(admin)...).status(try.status)
		require.Equal(t, "key:"+admin.ID, f.by.String(), change)
	}
}

// A revocation takes effect within 5 seconds, and so does a new key whose id was tried before it was made.
func TestRevocationTakesEffectInTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := playingAlong()
		b := setup(t, f, withKeys)
		key, early := f.addKey(otherTenant, earmark.RoleRead), keys.New()
		try := func(token keys.Token) int { return b.do("GET", "/v1/budgets", "", with(token)...).resp.StatusCode }
		require.Equal(t, http.StatusOK, try(key))
		require.Equal(t, http.StatusUnauthorized, try(early))
		now := time.Now()
		f.mu.Lock()
		f.credentials[key.ID].Key.RevokedAt = &now
		f.credentials[early.ID] = &earmark.Credential{Hash: early.Hash(), Key: earmark.Key{ID: early.ID, Tenant: otherTenant, Role: earmark.RoleRead}}
		f.mu.Unlock()
		require.Equal(t, http.StatusOK, try(key), "Postgres is not asked for each call")
		time.Sleep(5*time.Second - credentialTimeout) //nolint:forbidigo // fake time
		require.Equal(t, http.StatusUnauthorized, try(key))
		require.Equal(t, http.StatusOK, try(early))
		synctest.Wait()
	})
}

// Postgres is asked once for all who call at the same time, and once in a while for those who call later.
func TestPostgresIsAskedSeldom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := playingAlong()
		b := setup(t, f, withKeys)
		key := f.addKey(otherTenant, earmark.RoleSettle)
		for range 4 {
			flood := b.flood(200, "POST", settlePath("commit"), `{"usage":{"tokens":1}}`, with(key)...)
			flood.done.Wait()
			require.Equal(t, map[int]int{http.StatusOK: 200}, flood.answers)
			time.Sleep(time.Second) //nolint:forbidigo // fake time
		}
		synctest.Wait()
		require.Equal(t, []string{key.ID, key.ID}, f.lookups, "at 0 s and at 3 s")
		require.Equal(t, []string{key.ID}, f.marked, "its use is noted once")

		time.Sleep(time.Hour) //nolint:forbidigo // fake time
		b.do("POST", settlePath("commit"), `{"usage":{"tokens":1}}`, with(key)...).status(http.StatusOK)
		synctest.Wait()
		require.Equal(t, []string{key.ID, key.ID}, f.marked, "and once an hour")
	})
}

// A use that could not be noted is noted by a later call; the calls do not wait for it.
func TestUseIsNotedLater(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := playingAlong()
		f.markErr = errors.New("away")
		b := setup(t, f, withKeys)
		key := f.addKey(otherTenant, earmark.RoleRead)
		for range 3 {
			b.do("GET", "/v1/budgets", "", with(key)...).status(http.StatusOK)
			synctest.Wait()
		}
		require.Len(t, f.marked, 3)
		require.NotContains(t, b.log.String(), key.Text())
	})
}

// While Postgres is away, keys that it knew are good for a minute, and others cannot be checked: neither is
// reported as a key that does not work.
func TestKeysWhilePostgresIsAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := playingAlong()
		b := setup(t, f, withKeys)
		key, later, none := f.addKey(otherTenant, earmark.RoleSettle), f.addKey(otherTenant, earmark.RoleSettle), keys.New()
		try := func(token keys.Token) exchange {
			return b.do("POST", settlePath("commit"), `{"usage":{"tokens":1}}`, with(token)...)
		}
		try(key).status(http.StatusOK)
		try(none).status(http.StatusUnauthorized)
		f.mu.Lock()
		f.credentialErr = earmark.Errorf(earmark.CodeUnavailable, "connection refused by secret-host")
		f.mu.Unlock()
		for _, unchecked := range []keys.Token{later, keys.New()} {
			x := try(unchecked)
			x.problem(http.StatusServiceUnavailable, earmark.CodeUnavailable)
			require.Equal(t, "1", x.resp.Header.Get("Retry-After"))
			require.NotContains(t, string(x.body), "secret-host")
		}
		time.Sleep(credentialStale - time.Second) //nolint:forbidigo // fake time
		f.mu.Lock()
		f.lookups = nil
		f.mu.Unlock()
		for range 10 {
			try(key).status(http.StatusOK)
		}
		require.Len(t, f.lookups, 1, "a Postgres that is away is not asked at each call")
		try(none).problem(http.StatusServiceUnavailable, earmark.CodeUnavailable)
		time.Sleep(time.Second) //nolint:forbidigo // fake time
		try(key).problem(http.StatusServiceUnavailable, earmark.CodeUnavailable)
		f.mu.Lock()
		f.credentialErr = nil
		f.mu.Unlock()
		try(key).status(http.StatusOK)
		try(later).status(http.StatusOK)
		synctest.Wait()
	})
}

// A Postgres that does not answer holds a call up for a second at most.
func TestSlowPostgresHoldsCallsUpBriefly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := playingAlong()
		b := setup(t, f, withKeys)
		key := f.addKey(otherTenant, earmark.RoleSettle)
		try := func() exchange {
			return b.do("POST", settlePath("commit"), `{"usage":{"tokens":1}}`, with(key)...)
		}
		try().status(http.StatusOK)
		f.hang = true
		time.Sleep(credentialFresh) //nolint:forbidigo // fake time
		begun := time.Now()
		try().status(http.StatusOK)
		require.Equal(t, credentialTimeout, time.Since(begun))
		try().status(http.StatusOK)
		require.Equal(t, credentialTimeout, time.Since(begun), "the next does not wait for it again")
		synctest.Wait()
	})
}

// Whoever makes ids up takes no more than a few connections, fills no memory, and pushes no key out.
func TestMadeUpKeysAreBounded(t *testing.T) {
	t.Parallel()
	f := playingAlong()
	k := newCredentials(f, nil)
	key := f.addKey(otherTenant, earmark.RoleRead, func(c *earmark.Credential) { c.Key.LastUsedAt = new(time.Now().UTC()) })
	_, err := k.check(t.Context(), key)
	require.NoError(t, err)
	for range maxUnknown + 10 {
		_, err := k.check(t.Context(), keys.New())
		require.Equal(t, earmark.CodeUnauthenticated, earmark.ErrorCode(err))
	}
	require.LessOrEqual(t, len(k.unknown), maxUnknown)
	_, err = k.check(t.Context(), key)
	require.NoError(t, err)
	require.Equal(t, 1, count(f.lookups, key.ID))

	synctest.Test(t, func(t *testing.T) {
		f.hang = true
		b := setup(t, f, withKeys)
		for range 100 {
			go func() { _ = b.flood(1, "GET", "/v1/budgets", "", with(keys.New())...) }()
		}
		synctest.Wait()
		require.LessOrEqual(t, f.hanging.Load(), int64(maxLookups))
		time.Sleep(2 * credentialTimeout) //nolint:forbidigo // fake time
		synctest.Wait()
	})
}

func count(list []string, what string) int {
	n := 0
	for _, one := range list {
		if one == what {
			n++
		}
	}
	return n
}

// The log names the tenant of a call and its key, and no secret.
func TestLogNamesTheKey(t *testing.T) {
	t.Parallel()
	f := playingAlong()
	b := setup(t, f, withKeys)
	key := f.addKey(otherTenant, earmark.RoleSettle)
	b.do("POST", settlePath("commit"), `{"usage":{"tokens":1}}`, with(key)...).status(http.StatusOK)
	require.Contains(t, b.log.String(), `"tenant":"globex"`)
	require.Contains(t, b.log.String(), `"key":"`+key.ID+`"`)
	require.False(t, bytes.Contains(b.log.Bytes(), []byte(key.Text()[17:])))
}
