//go:build unix

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/earmark-dev/earmark"
	"github.com/earmark-dev/earmark/internal/postgres"
	"github.com/earmark-dev/earmark/internal/postgres/postgrestest"
)

// serveReal runs the server as `earmark serve` does, on a real Postgres and a real
// Temporal. The ledger is audited in the end.
func serveReal(t *testing.T) (url string) {
	t.Helper()
	pool := postgrestest.Pool(t, stack.PostgresURL())
	t.Cleanup(func() {
		report, err := postgres.New(pool).CheckRules(context.Background())
		require.NoError(t, err)
		require.Empty(t, report.Mismatches())
	})
	s := &settings{
		DatabaseURL: pool.Config().ConnString(), Addr: "127.0.0.1:0", WithoutKeys: true, Grace: 30 * time.Second,
		AdmissionDeadline: 10 * time.Second, temporalAddress: stack.TemporalAddress(), temporalNamespace: "default",
	}
	ctx, cancel := context.WithCancel(context.Background())
	ready, ended := make(chan string, 1), make(chan error, 1)
	go func() {
		ended <- serve(ctx, s, slog.New(slog.DiscardHandler), func(address string) { ready <- address })
	}()
	t.Cleanup(func() {
		cancel()
		require.NoError(t, <-ended)
	})
	select {
	case address := <-ready:
		return "http://" + address
	case err := <-ended:
		ended <- nil
		require.NoError(t, err)
	case <-time.After(20 * time.Second):
		require.Fail(t, "the server did not start")
	}
	return ""
}

// The life of a budget and of reservations on it, from the command line.
func TestOperate(t *testing.T) {
	t.Parallel()
	url := serveReal(t)
	run := func(args ...string) result { t.Helper(); return earmarkPipe(t, url, args...) }
	reservation := func(id string) (r earmark.Reservation) {
		t.Helper()
		require.NoError(t, json.Unmarshal([]byte(run("show", id, "--json").ok(t)), &r))
		return r
	}

	require.Equal(t, exitNotFound, run("reserve", "acme/u1", "--amount", "tokens=600").code, "no budget yet")
	budget := run("budget", "create", "acme", "tokens", "1,000", "--quiet").ok(t)
	require.Equal(t, exitFailed, run("budget", "create", "acme", "tokens", "1,000").code, "it exists")

	first := run("reserve", "acme/u1", "--amount", "tokens=600", "--key", "first", "--quiet").ok(t)
	require.Equal(t, first, run("reserve", "acme/u1", "--amount", "tokens=600", "--key", "first", "--quiet").ok(t))
	require.Equal(t, exitDenied, run("reserve", "acme/u2", "--amount", "tokens=600").code)
	require.Equal(t, exitDenied, run("decide", "acme/u2", "--amount", "tokens=600").code)
	run("decide", "acme/u2", "--amount", "tokens=400").ok(t)
	require.Contains(t, run("extend", first, "--ttl", "1h").ok(t), "(in 1h)")
	require.Contains(t, run("commit", first, "tokens=450").ok(t), "Committed: 450 tokens on acme/u1; 150 tokens given back")
	run("commit", first, "tokens=450").ok(t)
	settled := run("commit", first, "tokens=451")
	require.Equal(t, exitFailed, settled.code)
	require.Contains(t, settled.stderr, "450 tokens")

	second := run("reserve", "acme/u1", "--amount", "tokens=500", "--on-expiry", "review", "--quiet").ok(t)
	require.Contains(t, run("release", second[:shortID-1]+"…", "--final", "--reason", "not needed").ok(t), "Released: 500 tokens on acme/u1 given back")
	require.Equal(t, "not needed", reservation(second).Reason)
	third := run("reserve", "acme/u1", "--amount", "tokens=100", "--ttl", "1", "--on-expiry", "review", "--quiet").ok(t)
	require.Eventually(t, func() bool { return reservation(third).State == earmark.StateReview }, 15*time.Second, 50*time.Millisecond)
	require.Contains(t, run("list", "--state", "review").ok(t), third)
	require.Contains(t, run("commit", third, "tokens=120").ok(t), "late, overage")

	run("usage", "acme/u3", "--amount", "tokens=1_000", "--key", "batch").ok(t)
	again := run("usage", "acme/u3", "--amount", "tokens=1_000", "--key", "batch")
	again.ok(t)
	require.Contains(t, again.stderr, "An earlier call with this key did it")
	batch := earmark.ReservationID(earmark.DefaultTenant, "batch")
	const corrected = "Corrected: -400 tokens on acme/u3; 600 tokens now"
	require.Contains(t, run("correct", batch, "--amount", "tokens=-400", "--reason", "a refund", "--key", "refund").ok(t), corrected)
	again = run("correct", batch, "--amount", "tokens=-400", "--reason", "a refund", "--key", "refund")
	require.Contains(t, again.ok(t), corrected)
	require.Contains(t, again.stderr, "nothing more was corrected")
	below := run("correct", batch, "--amount", "tokens=-601", "--reason", "a refund")
	require.Equal(t, exitFailed, below.code)
	require.Contains(t, below.stderr, "at least -600 is allowed")
	run("correct", batch, "--amount", "tokens=400", "--reason", "no refund after all").ok(t)
	shown := run("budget", "show", budget).ok(t)
	require.Contains(t, shown, "Over limit     570")
	require.Contains(t, run("budget", "set", budget, "--limit", "2,000", "--enforcement", "soft", "--soft-ceiling", "3_000").ok(t), "soft to 3,000")
	require.Contains(t, run("budget", "list", "--covering", "acme/u9").ok(t), budget)
	require.Contains(t, run("entries", "--reservation", first).ok(t), "+450")
	require.Equal(t, "No grants. `earmark grant create ID AMOUNT` makes one.", run("grant", "list", budget).ok(t))
	grant := func() earmark.Grant {
		t.Helper()
		var page earmark.Page[earmark.Grant]
		require.NoError(t, json.Unmarshal([]byte(run("grant", "list", budget, "--json").ok(t)), &page))
		require.Len(t, page.Data, 1)
		return page.Data[0]
	}
	for _, more := range []string{"", "nothing more was changed"} {
		made := run("grant", "create", budget, "5_000", "--until", "2126-01-01", "--priority", "1", "--key", "top-up", "--reason", "order 4711")
		require.Contains(t, made.ok(t), "5,000")
		require.Contains(t, made.stderr, more)
	}
	require.EqualValues(t, 1, grant().Priority)
	shown = run("budget", "show", budget).ok(t)
	for _, part := range []string{"with grants", "5,000 left, 0 reserved, 0 committed", "used before grants"} {
		require.Contains(t, shown, part)
	}
	run("grant", "void", budget, grant().ID[:shortID-1]+"…", "--reason", "paid back").ok(t)
	require.EqualValues(t, 5_000, grant().Voided)
	require.Contains(t, run("budget", "set", budget, "--allowance", "last").ok(t), "used after grants")
	for flags, wrong := range map[string]string{
		"--priority 101": "--priority: 101 is out of range", "--until 2020-01-01": "--until: has passed", "--from 2126-02-01 --until 2126-01-01": "--until: is not after",
	} {
		below = run(append([]string{"grant", "create", budget, "1", "--reason", "r"}, strings.Fields(flags)...)...)
		require.Equal(t, exitUsage, below.code)
		require.Contains(t, below.stderr, wrong)
	}
	require.Contains(t, run("grant", "create", budget, "0", "--reason", "r").stderr, "AMOUNT: ")
	run("budget", "archive", budget, "--yes").ok(t)
	require.Equal(t, "No budgets. `earmark budget create SCOPE UNIT LIMIT` makes one.", run("budget", "list").ok(t))
	require.Equal(t, exitNotFound, run("reserve", "acme/u1", "--amount", "tokens=1").code)

	template := run("budget", "create", "app/users/*", "tokens", "100", "--period", "day", "--quiet").ok(t)
	require.Contains(t, run("budget", "show", template).ok(t), "gives each child a budget of its own")
	run("reserve", "app/users/ana", "--amount", "tokens=60", "--require-budget").ok(t)
	require.Equal(t, exitDenied, run("reserve", "app/users/ana", "--amount", "tokens=41").code)
	require.Contains(t, run("budget", "list", "--scope", "app/users/*").ok(t), template)
	children := run("budget", "list", "--template", template).ok(t)
	require.Contains(t, children, "app/users/ana")
	require.NotContains(t, children, "app/users/*")
	child := strings.Fields(strings.Split(children, "\n")[1])[0]
	require.Contains(t, run("budget", "show", child).ok(t), template+", followed")
	run("budget", "set", template, "--limit", "300", "--effective", "next_window").ok(t)
	require.Contains(t, run("budget", "show", child).ok(t), "100 tokens a day")
	run("budget", "set", child, "--limit", "70").ok(t)
	require.Contains(t, run("budget", "set", child, "--follow-template").ok(t), "300 tokens a day")
	require.Contains(t, run("budget", "set", child, "--follow-template=false").ok(t), "not followed")
	require.Equal(t, exitUsage, run("budget", "set", child, "--effective", "now").code)
}

// What an operator does in the place of a caller: who and why is in the journal, and
// shows the current state.
func TestRemedies(t *testing.T) {
	url := serveReal(t) // not beside TestOperate, whose worker serves the same task queue
	run := func(args ...string) result { t.Helper(); return earmarkPipe(t, url, args...) }
	run("budget", "create", "acme", "tokens", "1,000", "--quiet").ok(t)
	hold := func(scope string, more ...string) string {
		t.Helper()
		return run(append([]string{"reserve", scope, "--amount", "tokens=10", "--quiet"}, more...)...).ok(t)
	}
	journal := func(id string) (last earmark.Entry) {
		t.Helper()
		var page earmark.Page[earmark.Entry]
		require.NoError(t, json.Unmarshal([]byte(run("entries", "--reservation", id, "--json").ok(t)), &page))
		return page.Data[len(page.Data)-1]
	}

	released := hold("acme/u1")
	for range 2 {
		require.Contains(t, run("release", released, "--reason", "its process died", "--as", "alice").ok(t), "Expired: 10 tokens on acme/u1 given back; usage that arrives later is still charged")
	}
	entry := journal(released)
	require.Equal(t, []string{"expire", "operator:alice", "its process died"}, []string{entry.Kind, entry.Actor, entry.Reason})
	require.Contains(t, run("commit", released, "--usage", "tokens=12", "--reason", "the bill", "--as", "bob@example.com").ok(t), "Committed: 12 tokens")
	entry = journal(released)
	require.Equal(t, []string{"commit", "operator:bob@example.com", "late: the bill"}, []string{entry.Kind, entry.Actor, entry.Reason})
	for _, remedy := range [][]string{
		{"release", released, "--reason", "x"}, {"commit", released, "tokens=1"}, {"extend", released, "--ttl", "1h"}, {"adopt", released, "--reason", "x"},
	} {
		settled := run(remedy...)
		require.Equal(t, exitFailed, settled.code, remedy)
		require.Contains(t, settled.stderr, "committed already", remedy)
		require.Contains(t, settled.stderr, "12 tokens", remedy)
	}
	require.Equal(t, entry, journal(released), "nothing was written")

	extended := hold("acme/u2")
	run("extend", extended, "--ttl", "1h", "--reason", "a long stream", "--as", "alice").ok(t)
	entry = journal(extended)
	require.Equal(t, []string{"extend", "operator:alice"}, []string{entry.Kind, entry.Actor})
	require.Regexp(t, `^expires at \S+: a long stream$`, entry.Reason)
	require.Contains(t, run("adopt", extended, "--reason", "to be sure").ok(t), "Guarded")
	require.Equal(t, entry, journal(extended), "it has a workflow, so nothing was written")

	require.Equal(t, "Nothing is stuck.", strings.SplitN(run("stuck").ok(t), "\n", 2)[0])
	review := hold("acme/u3", "--ttl", "1", "--on-expiry", "review")
	require.Eventually(t, func() bool {
		return strings.Contains(run("stuck", "--reason", "review", "--scope", "acme/u3").ok(t), review)
	}, 15*time.Second, 50*time.Millisecond)
	require.Contains(t, run("stuck").ok(t), "earmark release "+review)

	dry := run("drain", "--scope", "acme", "--reason", "the tenant left").ok(t)
	require.Contains(t, dry, "These 2 would be given back: 20 tokens. Nothing was changed")
	require.Contains(t, dry, extended)
	require.Equal(t, "No open reservation fits; nothing was changed.", run("drain", "--scope", "acme", "--older-than", "1h", "--reason", "x").ok(t))
	require.Equal(t, "1 given back of 1", run("drain", "--scope", "acme", "--stuck", "review", "--reason", "the tenant left", "--yes", "--as", "alice").ok(t))
	require.Equal(t, "operator:alice", journal(review).Actor)
	require.Equal(t, "1 given back of 1", run("drain", "--scope", "acme", "--reason", "the tenant left", "--yes").ok(t))
	require.Equal(t, "No open reservation fits; nothing was changed.", run("drain", "--scope", "acme", "--reason", "the tenant left", "--yes").ok(t))
	for i := range 9 {
		hold(fmt.Sprint("acme/many/", i))
	}
	screen := &terminal{columns: 80, rows: 24}
	require.Contains(t, run("drain", "--scope", "acme/many", "--reason", "x", "--yes", "--json").ok(t), `"given_back": 9`)
	require.Zero(t, earmarkInto(t.Context(), screen, url, "drain", "--scope", "acme/many", "--reason", "x").code)
}

// A negative amount looks like a flag; the error says how to write it.
func TestNegativeAmountNeedsDashes(t *testing.T) {
	t.Parallel()
	root := newRoot()
	var stderr bytes.Buffer
	root.SetErr(&stderr)
	require.Equal(t, exitUsage, execute(t.Context(), root, []string{"override", "create", "bud_x", "-900", "--reason", "r"}))
	require.Contains(t, stderr.String(), "write -- before a negative amount")
}
