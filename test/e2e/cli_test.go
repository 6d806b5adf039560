//go:build unix

package e2e_test

import (
	"net"
	"net/http"
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/earmark-dev/earmark"
	"github.com/earmark-dev/earmark/internal/stack"
)

// cleanEnv is the test's environment without Earmark's and Temporal's settings.
func cleanEnv() (env []string) {
	for _, entry := range os.Environ() {
		if !strings.HasPrefix(entry, "EARMARK_") && !strings.HasPrefix(entry, "TEMPORAL_") {
			env = append(env, entry)
		}
	}
	return env
}

// What is called wrongly does nothing, ends with 2, and says in one sentence what
// would be right.
func TestWrongCalls(t *testing.T) {
	t.Parallel()
	const database = "--database-url=postgres://nobody@127.0.0.1:1/none"
	for _, c := range []struct {
		args, words string
	}{
		{"frobnicate", `there is no command "frobnicate"`},
		{"migrate sideways", `there is no command "sideways"`},
		{"serve --frobnicate", "unknown flag: --frobnicate"},
		{"serve extra " + database, "takes no arguments"},
		{"serve", "EARMARK_DATABASE_URL_FILE or --database-url"},
		{"worker", "EARMARK_DATABASE_URL_FILE or --database-url"},
		{"audit", "EARMARK_DATABASE_URL_FILE or --database-url"},
		{"prune", "EARMARK_DATABASE_URL_FILE or --database-url"},
		{"prune --keep=719h59m " + database, "at least 720h0m0s"},
		{"prune --keep=90d " + database, "--keep"},
		{"prune --as=a:b " + database, "--as"},
		{"migrate up", "EARMARK_DATABASE_URL_FILE or --database-url"},
		{"serve --without-keys --addr=0.0.0.0:8080 " + database, "--allow-unauthenticated-network-access"},
		{"serve --without-keys --addr=:8080 " + database, "--allow-unauthenticated-network-access"},
		{"serve --without-keys --addr=192.0.2.1:8080 " + database, "--allow-unauthenticated-network-access"},
		{"dev --addr=0.0.0.0:8080", "--allow-unauthenticated-network-access"},
		{"serve --addr=8080 " + database, "host:port"},
		{"serve " + database + "?default_query_exec_mode=exec", "default_query_exec_mode in the database URL is exec"},
		{"worker " + database + "?default_query_exec_mode=simple_protocol", "set cache_describe"},
		{"audit " + database + "?default_query_exec_mode=describe_exec", "default_query_exec_mode"},
		{"prune " + database + "?statement_cache_capacity=0", "statement_cache_capacity"},
		{"migrate up " + database + "?default_query_exec_mode=exec", "default_query_exec_mode"},
		{"serve --grace=5ms " + database, "--grace is 5ms"},
		{"serve --grace=soon " + database, "--grace"},
		{"serve --admission-deadline=1h " + database, "--admission-deadline is 1h"},
		{"serve --log-format=xml " + database, "json or text"},
		{"serve --log-level=loud " + database, "--log-level"},
	} {
		result := stack.RunCommand(t, cleanEnv(), stack.Binary(t), strings.Fields(c.args)...)
		require.Equal(t, 2, result.Code, "earmark %s: %s%s", c.args, result.Stdout, result.Stderr)
		require.True(t, strings.HasPrefix(result.Stderr, "earmark: "), result.Stderr)
		require.Contains(t, result.Stderr, c.words, "earmark %s", c.args)
		require.Equal(t, 1, strings.Count(result.Stderr, "\n"), "one line:\n%s", result.Stderr)
		require.Empty(t, result.Stdout)
	}
	result := stack.RunCommand(t, append(cleanEnv(), "EARMARK_ADDR=0.0.0.0:80", "EARMARK_WITHOUT_KEYS=true"), stack.Binary(t), "serve", database)
	require.Equal(t, 2, result.Code, "the environment is checked as flags are")
	result = stack.RunCommand(t, append(cleanEnv(), "EARMARK_GRACE=soon"), stack.Binary(t), "worker", database)
	require.Equal(t, 2, result.Code, result.Stderr)
	for _, help := range []string{"--help", "serve --help", "dev --help", "--version"} {
		result := stack.RunCommand(t, cleanEnv(), stack.Binary(t), strings.Fields(help)...)
		require.Zero(t, result.Code)
		require.Contains(t, result.Stdout, "earmark")
		require.Empty(t, result.Stderr)
	}
}

func TestTakenPort(t *testing.T) {
	t.Parallel()
	s := stack.New(t, stack.Options{})
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer func() { require.NoError(t, listener.Close()) }()
	result := s.Run("serve", "--addr", listener.Addr().String())
	require.Equal(t, 1, result.Code)
	require.Contains(t, result.Stderr, "cannot listen on "+listener.Addr().String())
	require.Contains(t, result.Stderr, "--addr")
}

func TestMigrate(t *testing.T) {
	t.Parallel()
	s := stack.New(t, stack.Options{Unmigrated: true})
	status := s.MustRun("migrate", "status")
	require.Contains(t, status, "00001_ledger.sql")
	require.Contains(t, status, "pending")
	require.Contains(t, status, "EarmarkScope")

	plan := s.MustRun("migrate", "up", "--plan")
	require.Contains(t, plan, "would apply 00007_sign_ins.sql: Browsers that are signed in with a key.\n")
	require.Equal(t, status, s.MustRun("migrate", "status"), "a plan changes nothing")

	// A server may be up before the schema is, and says what it lacks.
	server := s.Serve()
	b := api{t, server.URL}
	p := b.do("GET", "/readyz", "").problem(t, http.StatusServiceUnavailable, earmark.CodeUnavailable)
	require.Contains(t, p.Detail, "earmark migrate up")
	require.Equal(t, 1, s.Run("health", "--url", server.URL).Code)

	both := together(2, func(int) stack.Result { return stack.RunCommand(t, s.Env(), stack.Binary(t), "migrate", "up") })
	for _, result := range both { // at once: one works, the other waits
		require.Zero(t, result.Code, "%s%s", result.Stdout, result.Stderr)
	}
	require.Contains(t, both[0].Stdout+both[1].Stdout, "applied 00001_ledger.sql")
	require.Contains(t, s.MustRun("migrate", "up"), "up to date")
	status = s.MustRun("migrate", "status")
	require.NotContains(t, status, "pending")
	require.Contains(t, status, ": none")
	server.Ready()
	require.Equal(t, "the database is up to date\n", s.MustRun("migrate", "up", "--plan"))
	budget := b.budget("acme", "tokens", 10)
	b.hold("one", tokens("acme", 10, 60))
	b.requireBalance(budget, 10, 0)
	s.Audit()
}

// An audit finds a balance that somebody corrected by hand.
func TestAuditFindsMismatches(t *testing.T) {
	t.Parallel()
	b := setup(t, stack.Options{Unaudited: true})
	b.budget("acme", "tokens", 1000)
	held := b.hold("one", tokens("acme", 100, 60))
	b.commit(held.ID, 60).status(t, http.StatusOK)
	require.Contains(t, b.MustRun("audit"), "R3")

	_, err := b.Pool().Exec(t.Context(), "UPDATE earmark.entries SET committed_delta = 0")
	require.ErrorContains(t, err, "append-only")
	b.Exec("UPDATE earmark.windows SET committed = 59")
	result := b.Run("audit")
	require.Equal(t, 1, result.Code)
	require.Contains(t, result.Stdout, "R3 ")
	require.Contains(t, result.Stderr, "found mismatches")
	result = b.Run("audit", "--json")
	require.Equal(t, 1, result.Code)
	require.Contains(t, result.Stdout, `"mismatched": 1`)
	b.Exec("UPDATE earmark.windows SET committed = 60")
	b.Audit()
}

// What was settled long ago is removed, and the audit at the end finds nothing amiss.
func TestPrune(t *testing.T) {
	t.Parallel()
	b := setup(t, stack.Options{})
	budget := b.budget("acme", "tokens", 1000)
	old := b.hold("old", tokens("acme", 100, 60))
	b.commit(old.ID, 60).status(t, http.StatusOK)
	young := b.hold("young", tokens("acme", 100, 60))
	b.commit(young.ID, 7).status(t, http.StatusOK)
	b.Exec("UPDATE earmark.reservations SET created_at = created_at - interval '100 days', settled_at = settled_at - interval '100 days', refresh_due = false WHERE id = '" + old.ID + "'")

	require.Contains(t, b.MustRun("prune", "--dry-run"), "would remove 1 reservations that were settled more than 90 days ago, and 2 entries of theirs; 0 older ones would stay")
	require.Contains(t, b.MustRun("prune", "--keep", "4800h"), "removed 0 reservations that were settled more than 200 days ago")
	require.Contains(t, b.MustRun("prune", "--as", "alice", "--json"), `"reservations": 1`)
	b.do("GET", "/v1/reservations/"+old.ID, "").problem(t, http.StatusNotFound, earmark.CodeNotFound)
	b.do("GET", "/v1/reservations/"+young.ID, "").status(t, http.StatusOK)
	b.commit(old.ID, 60).problem(t, http.StatusNotFound, earmark.CodeNotFound)
	b.requireBalance(budget, 0, 67)
	x := b.do("GET", "/v1/entries?budget_id="+budget, "").status(t, http.StatusOK)
	journal := decoded[earmark.Page[earmark.Entry]](t, x).Data
	require.Equal(t, "checkpoint", journal[1].Kind)
	require.Equal(t, "stands for 2 entries of 1 reservations", journal[1].Reason)
	require.Equal(t, earmark.OperatorActor("alice").String(), journal[1].Actor)
}

// A namespace that cannot have search attributes does without.
func TestWithoutSearchAttributes(t *testing.T) {
	t.Parallel()
	s := stack.New(t, stack.Options{Unmigrated: true})
	s.MustRun("migrate", "up", "--without-search-attributes")
	server := s.Serve("--without-search-attributes").Ready()
	b := api{t, server.URL}
	budget := b.budget("acme", "tokens", 1000)
	b.hold("expiring", `{"scopes":["acme"],"amounts":{"tokens":100},"ttl_seconds":1,"on_expiry":"review"}`)
	b.commit(b.hold("one", tokens("acme", 100, 60)).ID, 60).status(t, http.StatusOK)
	b.awaitState(earmark.ReservationID(earmark.DefaultTenant, "expiring"), earmark.StateReview, moment)
	b.commitLate(earmark.ReservationID(earmark.DefaultTenant, "expiring"), 7)
	b.requireBalance(budget, 0, 67)

	indexed := s.Serve() // a server that wants them says that they are missing
	p := api{t, indexed.URL}.do("GET", "/readyz", "").problem(t, http.StatusServiceUnavailable, earmark.CodeUnavailable)
	require.Contains(t, p.Detail, "EarmarkScope")
	s.Audit()
}
