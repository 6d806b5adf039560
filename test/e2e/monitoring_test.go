//go:build unix

package e2e_test

import (
	"context"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/earmark-dev/earmark"
	"github.com/earmark-dev/earmark/internal/stack"
)

// workerWithMetrics starts a worker that shows its metrics, and returns where.
func (b *env) workerWithMetrics() string {
	b.t.Helper()
	addr := "127.0.0.1:" + strconv.Itoa(stack.FreePorts(b.t, 1)[0])
	b.Worker("--ops-addr", addr).AwaitLog("Started Worker")
	return "http://" + addr
}

func scrape(t *testing.T, base string) string {
	t.Helper()
	response, err := httpClient.Get(base + "/metrics")
	require.NoError(t, err)
	defer func() { require.NoError(t, response.Body.Close()) }()
	require.Equal(t, http.StatusOK, response.StatusCode)
	body, err := io.ReadAll(response.Body)
	require.NoError(t, err)
	return string(body)
}

var (
	series      = regexp.MustCompile(`(?m)^([a-z_][a-z0-9_]*)[ {]`)
	metricNames = regexp.MustCompile(`\b(earmark|temporal|go|process)_[a-z0-9_]+`)
	suffixes    = regexp.MustCompile(`_(bucket|sum|count)$`)
)

// lived makes every kind of metric appear: holds, settlements, overage, a late commit,
// a denial.
func (b *env) lived() {
	b.t.Helper()
	b.budget("acme", "tokens", 1000)
	b.hold("open", tokens("acme", 100, 60))
	b.commit(b.hold("over", tokens("acme", 100, 60)).ID, 120).status(b.t, http.StatusOK)
	late := b.hold("late", tokens("acme", 10, 1)).ID
	b.awaitState(late, earmark.StateExpired, moment)
	b.commitLate(late, 10)
	b.do("POST", "/v1/reservations", tokens("acme", 5000, 60)).status(b.t, http.StatusPaymentRequired)
}

// Alerts and dashboard name what there is, and the documentation lists it whole.
func TestEveryMetricExistsAndIsListed(t *testing.T) {
	t.Parallel()
	b := setup(t, stack.Options{})
	worker := b.workerWithMetrics()
	b.lived()
	exposed := map[string]bool{}
	for _, base := range []string{b.base, worker} {
		for _, match := range series.FindAllStringSubmatch(scrape(t, base), -1) {
			exposed[match[1]] = true
		}
	}

	root, err := stack.ModuleRoot()
	require.NoError(t, err)
	read := func(path string) string {
		content, err := os.ReadFile(filepath.Join(root, path))
		require.NoError(t, err)
		return string(content)
	}
	for _, path := range []string{"deploy/prometheus/alerts.yml", "deploy/prometheus/recording.yml", "deploy/grafana/dashboards/earmark.json"} {
		named := metricNames.FindAllString(read(path), -1)
		require.NotEmpty(t, named, path)
		for _, name := range named {
			require.True(t, exposed[name], "%s names %s, which no process shows", path, name)
		}
	}

	var own []string
	for name := range exposed {
		if strings.HasPrefix(name, "earmark_") {
			own = append(own, suffixes.ReplaceAllString(name, ""))
		}
	}
	slices.Sort(own)
	own = slices.Compact(own)
	var listed []string
	for _, match := range regexp.MustCompile("(?m)^\\| `(earmark_[a-z0-9_]+)").FindAllStringSubmatch(read("docs/observability.md"), -1) {
		listed = append(listed, match[1])
	}
	slices.Sort(listed)
	require.Equal(t, own, listed)
}

// What was late or over is counted once, by whichever process charged it, and all
// processes report the same about the whole ledger.
func TestMetricsTellWhatHappened(t *testing.T) {
	t.Parallel()
	b := setup(t, stack.Options{})
	worker := b.workerWithMetrics()
	b.lived()
	here, there := scrape(t, b.base), scrape(t, worker)
	total := func(name string) int { return sum(t, name, here, there) }
	require.Equal(t, 1, total("earmark_late_commits_total"))
	require.Equal(t, 20, total(`earmark_overage_total{unit="tokens"}`))
	require.Equal(t, 3, total(`earmark_ledger_transitions_total{outcome="applied",transition="reserve"}`))
	require.Equal(t, 2, total(`earmark_ledger_transitions_total{outcome="applied",transition="commit"}`))
	require.Equal(t, 1, total(`earmark_ledger_transitions_total{outcome="applied",transition="expire"}`))
	require.Equal(t, 3, total(`earmark_admissions_total{outcome="applied"}`))
	require.Equal(t, 4, total("earmark_admission_duration_seconds_count"))
	require.Equal(t, 2, total(`earmark_settlement_duration_seconds_count{verb="commit"}`))
	for _, text := range []string{here, there} {
		for _, line := range []string{
			`earmark_ledger_up 1`, `earmark_open_reservations{state="held"} 1`, `earmark_held_amount{unit="tokens"} 100`, `earmark_orphan_reservations 0`,
			`earmark_build_info{commit="",version="dev"} 1`,
		} {
			require.Contains(t, text, line+"\n")
		}
	}
	response, err := httpClient.Get(worker + "/healthz")
	require.NoError(t, err)
	body, err := io.ReadAll(response.Body)
	require.NoError(t, err)
	require.NoError(t, response.Body.Close())
	require.Equal(t, http.StatusOK, response.StatusCode)
	require.JSONEq(t, `{"status":"ok","version":"dev","commit":""}`, string(body))
}

// sum adds up one series over processes; 0 where none has it.
func sum(t *testing.T, name string, texts ...string) (total int) {
	t.Helper()
	for _, text := range texts {
		match := regexp.MustCompile(`(?m)^` + regexp.QuoteMeta(name) + ` (\d+)$`).FindStringSubmatch(text)
		if match != nil {
			n, err := strconv.Atoi(match[1])
			require.NoError(t, err)
			total += n
		}
	}
	return total
}

// A lost workflow is counted when the reconciler finds it, and a settlement that
// fails past its quick tries each time it does.
func TestMetricsTellOfTrouble(t *testing.T) {
	t.Parallel()
	b := setup(t, stack.Options{})
	b.budget("acme", "tokens", 1000)
	lost := b.hold("lost", tokens("acme", 100, 60)).ID
	require.NoError(t, b.Client().TerminateWorkflow(t.Context(), "reservation-"+lost, "", "a test"))
	b.reconcile("earmark-reconcile")
	stack.Eventually(t, moment, "an orphan to be counted", func() bool {
		text := scrape(t, b.base)
		return sum(t, "earmark_reconciler_orphans_total", text) == 1 && sum(t, "earmark_reconciler_adopted_total", text) == 1 &&
			sum(t, `earmark_reconciler_runs_total{outcome="ok"}`, text) >= 1
	})

	// Somebody keeps the row to themselves.
	locked := b.hold("locked", tokens("acme", 100, 60)).ID
	tx, err := b.Pool().Begin(t.Context())
	require.NoError(t, err)
	defer func() { _ = tx.Rollback(context.WithoutCancel(t.Context())) }() // else a failed test would wait for its connection
	_, err = tx.Exec(t.Context(), "SELECT FROM earmark.reservations WHERE id = $1 FOR UPDATE", locked)
	require.NoError(t, err)
	b.commit(locked, 40).status(t, http.StatusAccepted)
	const failures = `earmark_settlement_failures_total{activity="Commit"}`
	stack.Eventually(t, moment, "failures to be counted", func() bool { return sum(t, failures, scrape(t, b.base)) >= 2 })
	require.NoError(t, tx.Rollback(t.Context()))
	b.awaitState(locked, earmark.StateCommitted, moment)
}

// A Postgres that is away leaves the numbers out, and the rest of the metrics in.
func TestMetricsWithPostgresAway(t *testing.T) {
	t.Parallel()
	b := setup(t, stack.Options{OwnPostgres: true})
	b.budget("acme", "tokens", 1000)
	b.hold("open", tokens("acme", 100, 60))
	require.Contains(t, scrape(t, b.base), "earmark_ledger_up 1\n")
	b.Postgres.Pause()
	var text string
	stack.Eventually(t, moment, "earmark_ledger_up 0", func() bool {
		text = scrape(t, b.base)
		return strings.Contains(text, "earmark_ledger_up 0\n")
	})
	for _, name := range []string{"earmark_open_reservations", "earmark_held_amount", "earmark_oldest_hold_age_seconds", "earmark_orphan_reservations"} {
		require.NotContains(t, text, name)
	}
	require.Contains(t, text, `earmark_admissions_total{outcome="applied"} 1`)
	begun := time.Now()
	scrape(t, b.base)
	require.Less(t, time.Since(begun), 5*time.Second)
	b.Postgres.Resume()
	stack.Eventually(t, moment, "earmark_ledger_up 1", func() bool { return strings.Contains(scrape(t, b.base), "earmark_ledger_up 1\n") })
}

func TestOpsAddrIsLoopbackOrMeantSo(t *testing.T) {
	t.Parallel()
	s := stack.New(t, stack.Options{})
	for addr, says := range map[string]string{
		"0.0.0.0:9464": `--ops-addr is "0.0.0.0:9464", which others can reach`,
		"9464":         `--ops-addr is "9464"; it needs the form host:port`,
	} {
		for _, command := range []string{"worker", "serve"} {
			result := s.Run(command, "--ops-addr", addr)
			require.Equal(t, 2, result.Code, result.Stderr)
			require.Contains(t, result.Stderr, says)
		}
	}
}

// With an address for operators, the API's has no metrics; health is on both, also while the server drains.
func TestOpsAddrOfAServer(t *testing.T) {
	t.Parallel()
	ops := "127.0.0.1:" + strconv.Itoa(stack.FreePorts(t, 1)[0])
	b := setup(t, stack.Options{}, "--ops-addr", ops, "--drain-delay", "2s")
	require.Contains(t, scrape(t, "http://"+ops), "earmark_http_requests_total")
	b.do("GET", "/metrics", "").status(t, http.StatusNotFound)
	b.do("GET", "/debug/pprof/heap", "").status(t, http.StatusNotFound)
	profiles := api{t: t, base: "http://" + ops}
	require.Equal(t, http.StatusOK, profiles.try("HEAD", "/debug/pprof/heap", "").code)
	require.Equal(t, "ready: postgres, temporal, worker answer\n", b.MustRun("health", "--url", b.base))
	require.Equal(t, "ready: postgres, temporal, worker answer\n", b.MustRun("health", "--url", "http://"+ops))

	taken := b.Run("serve", "--addr", "127.0.0.1:0", "--ops-addr", ops)
	require.Equal(t, 1, taken.Code)
	require.Contains(t, taken.Stderr, "cannot be shown on "+ops+" (choose another with --ops-addr)")

	b.server.Signal(syscall.SIGTERM)
	stack.Eventually(t, moment, "the news that the server stops", func() bool {
		return strings.Contains(b.Run("health", "--url", "http://"+ops).Stderr, "about to stop")
	})
}

// What compose and an exec probe ask of a worker: the same question as of a server.
func TestHealthOfAWorker(t *testing.T) {
	t.Parallel()
	b := setup(t, stack.Options{OwnPostgres: true})
	addr := "127.0.0.1:" + strconv.Itoa(stack.FreePorts(t, 1)[0])
	b.Worker("--ops-addr", addr).AwaitLog("Started Worker")
	stack.Eventually(t, moment, "a healthy worker", func() bool {
		return b.Run("health", "--url", "http://"+addr).Stdout == "ready: postgres, temporal answer\n"
	})
	b.Postgres.Stop()
	down := b.Run("health", "--url", "http://"+addr)
	require.Equal(t, 1, down.Code)
	require.Contains(t, down.Stderr, "\n  postgres: ")
	b.Postgres.Start()
}

// The image listens where others can reach it: it asks for keys, and without them refuses to start until
// somebody allows that.
func TestTheImageServesNoNetworkByItself(t *testing.T) {
	t.Parallel()
	dockerfile, err := os.ReadFile(filepath.Join("..", "..", "Dockerfile"))
	require.NoError(t, err)
	variables := regexp.MustCompile(`(?m)^ENV (EARMARK_\S+)$`).FindAllStringSubmatch(string(dockerfile), -1)
	require.NotEmpty(t, variables)
	require.Contains(t, string(dockerfile), `CMD ["serve"]`)
	s := stack.New(t, stack.Options{Keys: true})
	env := s.Env()
	for _, variable := range variables {
		env = append(env, variable[1])
	}
	withoutKeys := append(slices.Clone(env), "EARMARK_WITHOUT_KEYS=true")
	refused := stack.RunCommand(t, withoutKeys, stack.Binary(t), "serve")
	require.Equal(t, 2, refused.Code, refused.Stderr)
	require.Contains(t, refused.Stderr, `--addr is "0.0.0.0:8080", which others can reach`)
	require.Contains(t, refused.Stderr, "EARMARK_ALLOW_UNAUTHENTICATED_NETWORK_ACCESS=true")

	for name, allowed := range map[string][]string{
		"with keys": env,
		"allowed":   append(withoutKeys, "EARMARK_ALLOW_UNAUTHENTICATED_NETWORK_ACCESS=true"),
	} {
		port := strconv.Itoa(stack.FreePorts(t, 1)[0])
		image := stack.NewProcess(t, "image", append(slices.Clone(allowed), "EARMARK_ADDR=0.0.0.0:"+port), stack.Binary(t), "serve")
		image.Start()
		image.AwaitLog("The HTTP API listens.")
		stack.Eventually(t, moment, "the server", func() bool { return s.Run("health", "--url", "http://127.0.0.1:"+port).Code == 0 })
		listed := s.Run("budget", "list", "--url", "http://127.0.0.1:"+port)
		require.Equal(t, name == "allowed", listed.Code == 0, listed.Stderr)
		if name == "with keys" {
			require.Contains(t, listed.Stderr, "EARMARK_API_KEY_FILE")
			image.AwaitLog("without TLS")
		}
	}
}
