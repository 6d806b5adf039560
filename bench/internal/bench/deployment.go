package bench

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	temporalclient "go.temporal.io/sdk/client"

	"github.com/earmark-dev/earmark"
	"github.com/earmark-dev/earmark/client"
	"github.com/earmark-dev/earmark/internal/devstack"
	"github.com/earmark-dev/earmark/internal/postgres"
)

const (
	// commandLimit bounds a command that is run to its end.
	commandLimit = 60 * time.Second
	// auditLimit is for an audit of ten million settled reservations.
	auditLimit = 30 * time.Minute
	// maxIdleConns is above the most clients that are measured at once.
	maxIdleConns = 2048
	callTimeout  = 30 * time.Second
	listensWords = "The HTTP API listens."
)

// deployment is a database and a namespace, migrated, and the earmark processes on them.
type deployment struct {
	name        string
	databaseURL string
	namespace   string
	pool        *pgxpool.Pool
	ledger      *postgres.Ledger
	temporal    temporalclient.Client

	services  *services
	api       *client.Client
	url       string
	processes []*devstack.Child
	started   int
	standing  int64 // reservations that are held all the time
}

// deploy makes a deployment on which nothing runs yet.
func (s *services) deploy(ctx context.Context, name string) (d *deployment, err error) {
	d = &deployment{name: name, services: s}
	if d.namespace, err = s.newNamespace(ctx, name); err != nil {
		return nil, err
	}
	if d.databaseURL, err = s.newDatabase(ctx, name); err != nil {
		return nil, err
	}
	if output, err := d.run(ctx, commandLimit, append([]string{"migrate", "up"}, d.temporalFlags()...)...); err != nil {
		return nil, fmt.Errorf("%w: %s", err, output)
	}
	if d.pool, err = postgres.Open(ctx, d.databaseURL); err != nil {
		return nil, err
	}
	d.ledger = postgres.New(d.pool)
	if d.temporal, err = s.options.Dial(s.options.TemporalAddress, d.namespace); err != nil {
		d.pool.Close()
		return nil, err
	}
	return d, nil
}

func (d *deployment) close(ctx context.Context) error {
	err := d.stop(ctx)
	d.temporal.Close()
	d.pool.Close()
	return err
}

func (d *deployment) temporalFlags() []string {
	return []string{"--temporal-address", d.services.options.TemporalAddress, "--temporal-namespace", d.namespace}
}

// command is an earmark with the settings of this deployment and no others.
func (d *deployment) command(ctx context.Context, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, d.program(), append(args, "--database-url", d.databaseURL)...) //nolint:gosec // the program to measure is the caller's choice
	cmd.Env = append(slices.DeleteFunc(os.Environ(), func(v string) bool {
		return strings.HasPrefix(v, "EARMARK_") || d.services.temporal != nil && strings.HasPrefix(v, "TEMPORAL_")
	}), "EARMARK_WITHOUT_KEYS=true")
	return cmd
}

func (d *deployment) program() string {
	if d.name == baseName {
		return d.services.options.Base
	}
	return d.services.options.Program
}

func (d *deployment) run(ctx context.Context, limit time.Duration, args ...string) (output string, err error) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	var out bytes.Buffer
	cmd := d.command(ctx, args...)
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Run(); err != nil {
		return out.String(), fmt.Errorf("earmark %s: %w", args[0], err)
	}
	return out.String(), nil
}

// audit checks the ledger's rules, and returns how long that took.
func (d *deployment) audit(ctx context.Context) (time.Duration, error) {
	begun := time.Now()
	if output, err := d.run(ctx, auditLimit, "audit"); err != nil {
		return 0, fmt.Errorf("the ledger of %s does not add up: %w\n%s", d.name, err, output)
	}
	return time.Since(begun), nil
}

// serve starts `earmark serve`, and with separate a worker in a process of its own,
// and waits until a reservation goes through.
func (d *deployment) serve(ctx context.Context, separate bool) error {
	args := append([]string{"serve", "--addr", "127.0.0.1:0", "--log-format", "json"}, d.temporalFlags()...)
	if d.name != baseName { // an earlier build may not know the flag
		args = append(args, "--drain-delay", "0s")
	}
	if d.services.options.Quick { // also on a machine that is busy with other tests
		args = append(args, "--admission-deadline", "10s")
	}
	if separate {
		args = append(args, "--without-worker")
		if _, err := d.start(ctx, "worker", append([]string{"worker"}, d.temporalFlags()...)...); err != nil {
			return err
		}
	}
	server, err := d.start(ctx, "serve", args...)
	if err != nil {
		return err
	}
	ctx, cancel := whileAlive(ctx, d.processes...)
	defer cancel()
	if err := await(ctx, "the HTTP API", func() error {
		if d.url = listensAt(server.LogPath(), listensWords); d.url == "" {
			return errors.New("it does not listen yet")
		}
		return nil
	}); err != nil {
		return err
	}
	transport := &http.Transport{MaxIdleConns: maxIdleConns, MaxIdleConnsPerHost: maxIdleConns}
	d.api, err = client.New(d.url, client.WithMaxAttempts(1), client.WithHTTPClient(&http.Client{Transport: transport, Timeout: callTimeout}))
	if err != nil {
		return err
	}
	return await(ctx, "the worker", func() error {
		r, err := d.api.Reserve(ctx, "", request(scopeOf(0), unitAmount))
		if err == nil {
			_, err = d.api.Release(ctx, r.ID, "to see that all is up")
		}
		return err
	})
}

// whileAlive is a context that ends with the first of the processes: what has ended
// is not waited for.
func whileAlive(ctx context.Context, processes ...*devstack.Child) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancelCause(ctx)
	for _, p := range processes {
		go func() {
			select {
			case <-p.Done():
				cancel(p.Err())
			case <-ctx.Done():
			}
		}()
	}
	return ctx, func() { cancel(nil) }
}

func (d *deployment) start(ctx context.Context, name string, args ...string) (*devstack.Child, error) {
	cmd := d.command(context.WithoutCancel(ctx), args...) // ended by stop, in order
	d.started++                                           // a log for each process: one says where it listens
	logPath := filepath.Join(d.services.dir, fmt.Sprintf("%s-%s-%d.log", d.name, name, d.started))
	child, err := devstack.StartChild("earmark "+name, cmd, logPath)
	if err == nil {
		d.processes = append(d.processes, child)
	}
	return child, err
}

// stop ends the processes; the data stay.
func (d *deployment) stop(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopLimit)
	defer cancel()
	var errs []error
	for _, p := range d.processes {
		errs = append(errs, p.Err(), p.Stop(ctx))
	}
	d.processes = nil
	return errors.Join(errs...)
}

// listensAt finds in a server's log where it listens, as these words say; "" before it does.
func listensAt(logPath, words string) string {
	content, err := os.ReadFile(filepath.Clean(logPath))
	if err != nil {
		return ""
	}
	for line := range bytes.Lines(content) {
		var entry struct {
			Message string `json:"msg"`
			Address string `json:"address"`
		}
		if json.Unmarshal(line, &entry) == nil && entry.Message == words {
			return "http://" + entry.Address
		}
	}
	return ""
}

// read returns what the processes have used so far.
func (d *deployment) read(ctx context.Context) meter {
	m := meter{driver: ownCPU()}
	for _, p := range d.processes {
		m.earmark += treeCPU(p.PID())
	}
	m.temporal, m.postgres = notANumber, notANumber
	if t := d.services.temporal; t != nil {
		m.temporal = treeCPU(t.PID())
	}
	if p := d.services.postgres; p != nil {
		m.postgres = treeCPU(p.PID())
	}
	if err := d.pool.QueryRow(ctx, "SELECT pg_wal_lsn_diff(pg_current_wal_lsn(), '0/0')::float8").Scan(&m.walBytes); err != nil {
		m.walBytes = notANumber
	}
	return m
}

// residentBytes is the memory of the earmark processes together.
func (d *deployment) residentBytes() float64 {
	sum := 0.0
	for _, p := range d.processes {
		sum += residentBytes(p.PID())
	}
	return sum
}

// held counts the open reservations.
func (d *deployment) held(ctx context.Context) (n int64, err error) {
	err = d.pool.QueryRow(ctx, "SELECT count(*) FROM earmark.reservations WHERE state = 'held'").Scan(&n)
	return n, err
}

// What a lifecycle reserves and uses, of a budget that has room for all of them.
const (
	unit                = "tokens"
	unitAmount    int64 = 10
	unitUsage     int64 = 7
	budgetLimit   int64 = 1_000_000_000_000_000
	manyBudgets         = 1000
	leaseSeconds  int64 = 3600
	hotScope            = "bench/hot"
	fullScope           = "bench/full" // has no room at all
	scopesPrefix        = "bench/b"
	insertBudgets       = `INSERT INTO earmark.budgets (id, tenant, scope, unit, limit_amount, period, timezone, enforcement, overage)
		SELECT 'bud_bench' || row_number() OVER (), 'default', scope, $1, amount, 'lifetime', 'UTC', 'hard', 'allow_with_overdraft'
		FROM (SELECT $2 || n AS scope, $3::bigint AS amount FROM generate_series(0, $4::int - 1) AS n
		      UNION ALL VALUES ($5, $3::bigint), ($6, 0::bigint)) AS wanted`
)

// newBudgets makes many budgets with room, a hot one, and a full one.
func (d *deployment) newBudgets(ctx context.Context) error {
	if _, err := d.pool.Exec(ctx, insertBudgets, unit, scopesPrefix, budgetLimit, manyBudgets, hotScope, fullScope); err != nil {
		return fmt.Errorf("make budgets: %w", err)
	}
	// As autovacuum would have done a minute later.
	_, err := d.pool.Exec(ctx, "ANALYZE")
	return err
}

// scopeOf spreads lifecycles over the many budgets.
func scopeOf(n int64) string { return fmt.Sprintf("%s%d", scopesPrefix, n%manyBudgets) }

func request(scope string, amount int64) earmark.ReservationRequest {
	return earmark.ReservationRequest{Scopes: []string{scope}, Amounts: earmark.Amounts{unit: amount}, TTLSeconds: leaseSeconds}.WithDefaults()
}
