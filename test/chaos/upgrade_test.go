//go:build linux && drills

package chaos_test

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/earmark-dev/earmark"
	"github.com/earmark-dev/earmark/internal/stack"
	"github.com/earmark-dev/earmark/migrations"
)

// oldestBeside is a commit with the schema migrations.OldestBeside, the oldest whose programs run beside this one.
const oldestBeside = "830867d"

var fromFlag = flag.String("from", oldestBeside, "the commit that TestUpgradeUnderLoad upgrades from")

// longHolds are open across an upgrade.
const (
	longHolds   = 30
	longHoldTTL = 30 * time.Minute
)

// TestUpgradeUnderLoad upgrades schema, servers and workers from an earlier commit under load, one process after the other,
// goes back to the earlier programs, and forward again. Reservations of both are open meanwhile, and settle on the other.
func TestUpgradeUnderLoad(t *testing.T) {
	former := buildCommit(t, *fromFlag)
	c := newBareCluster(t, stack.Options{OwnPostgres: true, OwnTemporal: true, Durable: true, Grace: grace, AdmissionDeadline: drillDeadline, Keys: true, Unmigrated: true})
	c.former = true
	c.Use(former)
	c.MustRun("migrate", "up")
	c.populate(2, 2)
	x := newDrill(t, c)
	holds := &longLived{t: t, driver: x.driver}
	holds.reserve("former")

	current := stack.Binary(t)
	c.Use(current)
	t.Log(c.MustRun("migrate", "status"))
	requireRefused(t, c)
	x.during("earmark migrate up", func() { t.Log(c.MustRun("migrate", "up")) })
	roll := func(binary string) {
		for _, n := range c.nodes {
			c.broken.breaks(n.name)
			n.Signal(syscall.SIGTERM)
			require.Zero(t, n.Wait(endLimit), "%s did not end well:\n%s", n.name, n.Log())
			n.UseProgram(binary)
			c.startNode(n)
			if n.server != nil {
				stack.Eventually(t, mendLimit, n.name+" to be ready", n.server.IsReady)
			}
		}
	}
	x.during("every process to this version", func() { roll(current) })
	holds.settle(0, longHolds/3)
	holds.reserve("current")
	x.during("every process back", func() { roll(former) })
	holds.settle(longHolds/3, longHolds/3+longHolds)
	x.during("every process to this version", func() { roll(current) })
	holds.settle(longHolds/3+longHolds, 2*longHolds)
	x.finish()
}

// requireRefused checks that nothing is migrated while a program is connected that could not go on beside this one.
func requireRefused(t *testing.T, c *cluster) {
	t.Helper()
	config, err := pgx.ParseConfig(c.DatabaseURL)
	require.NoError(t, err)
	older := migrations.OldestBeside - 1
	config.RuntimeParams["application_name"] = fmt.Sprintf("earmark/%d", older)
	conn, err := pgx.ConnectConfig(t.Context(), config)
	require.NoError(t, err)
	defer func() { require.NoError(t, conn.Close(context.Background())) }()
	result := c.Run("migrate", "up")
	require.NotZero(t, result.Code)
	require.Contains(t, result.Stderr, fmt.Sprintf("a program for schema %d is connected", older))
	t.Log(result.Stderr)
}

// longLived are reservations that one version makes and another settles.
type longLived struct {
	t      *testing.T
	driver *driver
	lives  []*life
}

func (h *longLived) reserve(by string) {
	h.t.Helper()
	for n := range longHolds {
		l := h.driver.add(&life{Tenant: tenantNames[n%len(tenantNames)], Script: "long", Key: fmt.Sprintf("long-%s-%d", by, n), Request: earmark.ReservationRequest{
			Scopes: []string{scopeProbe}, Amounts: earmark.Amounts{unitTokens: 5}, TTLSeconds: int64(longHoldTTL / time.Second)}.WithDefaults()})
		require.Equal(h.t, done, h.driver.reserve(l).Outcome)
		h.lives = append(h.lives, l)
	}
}

// settle commits or releases the reservations with these numbers.
func (h *longLived) settle(from, to int) {
	h.t.Helper()
	for n := from; n < to; n++ {
		l := h.lives[n]
		a := attempt{}
		if n%5 == 0 {
			a = h.driver.release(l)
		} else {
			a = h.driver.commit(l, earmark.Amounts{unitTokens: int64(n % 6)})
		}
		require.Contains(h.t, []outcome{done, accepted}, a.Outcome, l)
	}
}

// buildCommit builds the earmark of a commit of this repository's history.
func buildCommit(t *testing.T, commit string) (binary string) {
	t.Helper()
	root, err := stack.ModuleRoot()
	require.NoError(t, err)
	dir := t.TempDir()
	archive := filepath.Join(dir, "source.tar")
	ctx := context.Background()
	run := func(in, program string, args ...string) {
		cmd := exec.CommandContext(ctx, program, args...)
		cmd.Dir, cmd.Env = in, os.Environ()
		output, err := cmd.CombinedOutput()
		require.NoError(t, err, "the history of this repository has to be there\n%s", output)
	}
	source := filepath.Join(dir, "source")
	require.NoError(t, os.Mkdir(source, 0o755))
	run(root, "git", "archive", "--output", archive, commit)
	run(dir, "tar", "-xf", archive, "-C", source)
	binary = filepath.Join(dir, "earmark")
	run(source, "go", "build", "-buildvcs=false", "-o", binary, "./cmd/earmark")
	return binary
}
