//go:build unix

package e2e_test

import (
	"crypto/tls"
	"encoding/base64"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"
	enumspb "go.temporal.io/api/enums/v1"
	"go.temporal.io/api/workflowservice/v1"
	"google.golang.org/protobuf/encoding/protojson"

	"github.com/earmark-dev/earmark"
	"github.com/earmark-dev/earmark/internal/certificate"
	"github.com/earmark-dev/earmark/internal/certificate/certificatetest"
	"github.com/earmark-dev/earmark/internal/keys"
	"github.com/earmark-dev/earmark/internal/stack"
)

// Neither Postgres nor Temporal can be reached, and everything fails that can: no log, answer, metric or command line holds a
// password or a key.
func TestErrorsHoldNoSecrets(t *testing.T) {
	t.Parallel()
	s := stack.New(t, stack.Options{Unmigrated: true})
	authority, pair := certificatetest.New(t), certificatetest.NewPair(t)
	authority.Valid(pair)
	keys := payloadKeys(t, s)
	s.DatabaseURL = "postgres://earmark:planted-password@127.0.0.1:1/earmark"
	s.Setenv("TEMPORAL_API_KEY", "planted-temporal-key") // which switches TLS on, that the server does not speak
	ops := "127.0.0.1:" + strconv.Itoa(stack.FreePorts(t, 1)[0])
	server := s.Serve("--tls-cert", pair.Cert, "--tls-key", pair.Key, "--payload-keys", keys, "--log-level", "debug", "--ops-addr", ops)

	roots, err := certificate.Roots(authority.File)
	require.NoError(t, err)
	secure := &http.Client{Timeout: callLimit, Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}}}
	t.Cleanup(secure.CloseIdleConnections)
	var said strings.Builder
	get := func(url string) string {
		response, err := secure.Get(url)
		require.NoError(t, err)
		defer func() { _ = response.Body.Close() }()
		body, err := io.ReadAll(response.Body)
		require.NoError(t, err)
		said.Write(body)
		return string(body)
	}
	base := strings.Replace(server.URL, "http:", "https:", 1)
	require.Contains(t, get(base+"/readyz"), "postgres: ")
	get(base + "/v1/budgets")
	get(base + "/v1/reservations?stuck=true")
	for _, path := range []string{"/readyz", "/metrics", "/debug/pprof/", "/debug/pprof/cmdline", "/debug/pprof/goroutine?debug=2"} {
		get("http://" + ops + path)
	}
	for _, command := range []string{"audit", "migrate up", "migrate status", "prune --dry-run", "serve --tls-cert " + keys + " --tls-key " + pair.Key, "serve --payload-keys " + pair.Key} {
		result := s.Run(strings.Fields(command)...)
		require.NotZero(t, result.Code, command)
		said.WriteString(result.Stdout + result.Stderr)
	}
	commandLine, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", server.PID()))
	if err == nil { // where there is none, flags hold no secret either
		said.Write(commandLine)
	}
	server.Kill()
	said.WriteString(server.Log())

	text := said.String()
	require.Contains(t, text, "127.0.0.1:1", "the sign that the errors were made")
	secrets := []string{"planted-password", "planted-temporal-key"}
	for _, file := range []string{keys, pair.Key} {
		content, err := os.ReadFile(file)
		require.NoError(t, err)
		for _, word := range strings.Fields(string(content)) {
			if len(word) > 30 {
				secrets = append(secrets, word)
			}
		}
	}
	require.Greater(t, len(secrets), 3)
	for _, secret := range secrets {
		require.NotContains(t, text, secret, "a secret is shown")
	}
}

// A key is used as it should be and in every wrong way, in calls that succeed and that fail. Its secret is in no log, answer,
// metric, profile, trace, command line, row or history.
func TestKeysStaySecret(t *testing.T) {
	t.Parallel()
	collector := collect(t)
	s := stack.New(t, stack.Options{Keys: true})
	s.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)
	s.Setenv("OTEL_BSP_SCHEDULE_DELAY", "50")
	ops := "127.0.0.1:" + strconv.Itoa(stack.FreePorts(t, 1)[0])
	server := s.Serve("--log-level", "debug", "--ops-addr", ops).Ready()
	create := func(flags ...string) string {
		return strings.TrimSpace(s.MustRun(append([]string{"key", "create", "--role", "admin", "--reason", "test"}, flags...)...))
	}
	valid, revoked, bound, unknown := create(), create(), create("--scope", "elsewhere"), keys.New().Text()
	s.MustRun("key", "revoke", strings.Split(revoked, "_")[1], "--reason", "test")

	var said strings.Builder
	send := func(method, path, body string, header ...string) int {
		request, err := http.NewRequestWithContext(t.Context(), method, path, strings.NewReader(body))
		require.NoError(t, err)
		if strings.HasPrefix(path, "/") {
			request.URL, err = url.Parse(server.URL + path)
			require.NoError(t, err)
		}
		for i := 0; i < len(header); i += 2 {
			request.Header.Add(header[i], header[i+1])
		}
		response, err := http.DefaultTransport.RoundTrip(request) // follows no redirection
		require.NoError(t, err)
		defer func() { _ = response.Body.Close() }()
		answer, err := io.ReadAll(response.Body)
		require.NoError(t, err)
		fmt.Fprintln(&said, response.Header, string(answer))
		return response.StatusCode
	}
	bearer := func(key string) []string {
		return []string{"Authorization", "Bearer " + key, "Content-Type", "application/json"}
	}
	const reservation = `{"scopes":["acme"],"amounts":{"tokens":1},"metadata":{"note":"kept"}}`
	require.Equal(t, 201, send("POST", "/v1/budgets", `{"scope":"acme","unit":"tokens","limit":100}`, bearer(valid)...))
	require.Equal(t, 201, send("POST", "/v1/reservations", reservation, append(bearer(valid), "Idempotency-Key", "chat-1")...))
	id := earmark.ReservationID(earmark.DefaultTenant, "chat-1")
	require.Equal(t, 200, send("POST", "/v1/reservations/"+id+"/release", "", bearer(valid)...))
	require.Equal(t, 201, send("POST", "/v1/reservations", reservation, append(bearer(valid), "Idempotency-Key", "chat-2")...))
	require.Equal(t, 402, send("POST", "/v1/reservations", strings.Replace(reservation, ":1", ":1000", 1), bearer(valid)...))
	require.Equal(t, 403, send("POST", "/v1/reservations", reservation, bearer(bound)...))
	for _, key := range []string{valid[:len(valid)-1] + "!", valid[:len(valid)-1], valid + "x", strings.ToUpper(valid), revoked, unknown} {
		require.Equal(t, 401, send("POST", "/v1/reservations", reservation, bearer(key)...))
		require.NotEqual(t, 303, send("POST", "/sign-in", "key="+key, "Content-Type", "application/x-www-form-urlencoded"))
	}
	require.Equal(t, 303, send("POST", "/sign-in", "key="+valid, "Content-Type", "application/x-www-form-urlencoded"))
	for _, path := range []string{"/v1/budgets?key=" + valid, "/v1/budgets?scope=" + valid, "/v1/reservations/" + valid, "/sign-in?key=" + valid, "/" + valid} {
		require.Equal(t, 400, send("GET", path, "", bearer(valid)...), "with a key in the URL")
		send("GET", path, "")
	}
	for _, header := range []string{"X-Api-Key", "Api-Key", "Cookie", "User-Agent", "Referer", "Traceparent", "Baggage", "X-Request-Id", "X-Forwarded-For", "Origin", "Accept"} {
		send("GET", "/v1/budgets", "", header, valid)
		send("GET", "/v1/budgets", "", append(bearer(valid), header, valid)...)
	}
	for _, value := range []string{valid, "Basic " + base64.StdEncoding.EncodeToString([]byte("key:"+valid)), "Basic " + valid, "Digest " + valid} {
		require.Equal(t, 401, send("GET", "/v1/budgets", "", "Authorization", value))
	}
	send("POST", "/v1/reservations", reservation, append(bearer(valid), "Idempotency-Key", valid)...)
	for _, body := range []string{`{"scopes":["` + valid + `"],"amounts":{"tokens":1}}`, `{"` + valid + `":1}`, valid, `{"scopes":["acme"],"amounts":{"` + valid + `":1}}`} {
		send("POST", "/v1/reservations", body, bearer(valid)...)
	}
	for _, path := range []string{"/readyz", "/metrics", "/debug/pprof/cmdline", "/debug/pprof/goroutine?debug=2", "/debug/pprof/heap?debug=1"} {
		require.Equal(t, path != "/debug/pprof/cmdline", send("GET", "http://"+ops+path, "") == 200, path)
	}
	s.Setenv("EARMARK_URL", server.URL)
	for _, key := range []string{valid, revoked, valid[:len(valid)-1], unknown} {
		s.Setenv("EARMARK_API_KEY", key)
		for _, command := range []string{"budget list", "reserve acme --amount tokens=1", "show " + id, "stuck --json", "health"} {
			result := s.Run(strings.Fields(command)...)
			said.WriteString(result.Stdout + result.Stderr)
		}
	}
	for _, file := range []string{"cmdline", "environ"} {
		content, err := os.ReadFile(fmt.Sprintf("/proc/%d/%s", server.PID(), file))
		if err == nil { // only Linux has them
			said.Write(content)
		}
	}
	stack.Eventually(t, moment, "the traces of a call", func() bool { return strings.Contains(collector.text(), "/v1/reservations") })
	server.Kill()
	places := map[string]string{
		"the log": server.Log(), "an answer": said.String(), "a trace": collector.text(), "Postgres": dumpOf(t, s), "Temporal": historiesOf(t, s),
	}
	for place, sign := range map[string]string{"the log": strings.Split(valid, "_")[1], "an answer": "budget_exceeded", "Postgres": "kept", "Temporal": "kept"} {
		require.Contains(t, places[place], sign, "the sign that the search would find it in %s", place)
	}
	for _, key := range []string{valid, revoked, bound, unknown} {
		secret := strings.Split(key, "_")[2]
		for place, text := range places {
			for _, needle := range []string{secret[:20], strings.ToUpper(secret)[:20], base64.StdEncoding.EncodeToString([]byte("key:" + key))[30:60]} {
				require.NotContains(t, text, needle, "%s shows the secret of a key, beside: %s", place, beside(text, needle))
			}
		}
	}
}

// beside is what surrounds a word in a text.
func beside(text, word string) string {
	at := strings.Index(text, word)
	if at < 0 {
		return ""
	}
	return text[max(0, at-200):min(len(text), at+100)]
}

// text is all spans, as text.
func (c *traces) text() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	var text strings.Builder
	for _, span := range c.spans {
		text.WriteString(protojson.Format(span))
	}
	return text.String()
}

// dumpOf is every row of the schema.
func dumpOf(t *testing.T, s *stack.Stack) string {
	t.Helper()
	rows, err := s.Pool().Query(t.Context(), "SELECT format('SELECT coalesce(string_agg(x::text, chr(10)), '''') FROM earmark.%I x', tablename) FROM pg_tables WHERE schemaname = 'earmark'")
	require.NoError(t, err)
	queries, err := pgx.CollectRows(rows, pgx.RowTo[string])
	require.NoError(t, err)
	var all strings.Builder
	for _, query := range queries {
		var text string
		require.NoError(t, s.Pool().QueryRow(t.Context(), query).Scan(&text))
		all.WriteString(text)
	}
	return all.String()
}

// historiesOf is the history of every workflow of the namespace, those of schedules too.
func historiesOf(t *testing.T, s *stack.Stack) string {
	t.Helper()
	var all strings.Builder
	page, err := s.Client().ListWorkflow(t.Context(), &workflowservice.ListWorkflowExecutionsRequest{Namespace: s.Namespace, PageSize: 1000})
	require.NoError(t, err)
	require.Empty(t, page.GetNextPageToken())
	for _, execution := range page.GetExecutions() {
		all.WriteString(execution.String())
		for events := s.Client().GetWorkflowHistory(t.Context(), execution.GetExecution().GetWorkflowId(), execution.GetExecution().GetRunId(), false, enumspb.HISTORY_EVENT_FILTER_TYPE_ALL_EVENT); events.HasNext(); {
			event, err := events.Next()
			require.NoError(t, err)
			all.WriteString(event.String())
		}
	}
	return all.String()
}
