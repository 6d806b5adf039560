//go:build unix

package migrating

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/earmark-dev/earmark"
	"github.com/earmark-dev/earmark/client"
	"github.com/earmark-dev/earmark/internal/stack"
)

const usedPerCall = 60

func TestMain(m *testing.M) { os.Exit(stack.Main(m)) }

// env is a backend with the table that it had before, on a real server.
type env struct {
	*Backend
	t      *testing.T
	server *stack.Server
	log    bytes.Buffer
}

func setup(t *testing.T) *env {
	t.Helper()
	s := stack.New(t, stack.Options{})
	b := &env{t: t, server: s.Serve().Ready()}
	api, err := client.New(b.server.URL)
	require.NoError(t, err)
	b.Backend = &Backend{
		DB: s.Pool(), Earmark: api, Log: slog.New(slog.NewTextHandler(&b.log, nil)),
		Model: func(context.Context, string) (string, int64, error) { return "hello", usedPerCall, nil },
	}
	s.Exec(`CREATE TABLE usage (customer text, period date, used bigint NOT NULL, token_limit bigint NOT NULL, PRIMARY KEY (customer, period))`)
	s.Exec(`INSERT INTO usage SELECT c, date_trunc('month', now() AT TIME ZONE 'UTC')::date, n, 1000
		FROM (VALUES ('acme', 300), ('umbrella', 0), ('overspent', 1300)) AS known (c, n)`)
	return b
}

func (b *env) used(customer string) (tokens int64) {
	require.NoError(b.t, b.DB.QueryRow(b.t.Context(), `SELECT used FROM usage WHERE customer = $1`, customer).Scan(&tokens))
	return tokens
}

func (b *env) balance(customer string) earmark.Balance {
	page, err := b.Earmark.Budgets(b.t.Context(), earmark.BudgetFilter{Scope: customer})
	require.NoError(b.t, err)
	require.Len(b.t, page.Data, 1)
	return page.Data[0].Balance
}

// requireEqual checks that both sides count the same for everybody.
func (b *env) requireEqual() {
	b.t.Helper()
	for _, customer := range []string{"acme", "umbrella", "overspent"} {
		require.Equal(b.t, b.used(customer), b.balance(customer).Committed, customer)
		require.Zero(b.t, b.balance(customer).Reserved, customer)
	}
}

func TestMigration(t *testing.T) {
	t.Parallel()
	b := setup(t)
	ctx := t.Context()
	_, err := b.ChatBefore(ctx, "acme", "hi")
	require.NoError(t, err)
	_, err = b.ChatBefore(ctx, "overspent", "hi")
	require.ErrorIs(t, err, ErrOverLimit)

	// Prepare.
	schema, err := os.ReadFile("schema.sql")
	require.NoError(t, err)
	_, err = b.DB.Exec(ctx, string(schema))
	require.NoError(t, err)
	for range 2 {
		require.NoError(t, b.CreateBudgets(ctx))
	}

	// Shadow. Until the import Earmark knows too little, and says so.
	_, err = b.ChatShadow(ctx, "overspent", "shadow-0", "hi")
	require.ErrorIs(t, err, ErrOverLimit)
	require.Contains(t, b.log.String(), "Earmark disagrees.")
	for _, id := range []string{"shadow-1", "shadow-2"} {
		_, err = b.ChatShadow(ctx, "acme", id, "hi")
		require.NoError(t, err)
	}
	require.NoError(t, b.SendCharges(ctx))
	require.EqualValues(t, 2*usedPerCall, b.balance("acme").Committed)

	// Import, before and after rows are sent, and more than once.
	_, err = b.ChatShadow(ctx, "acme", "shadow-3", "hi")
	require.NoError(t, err)
	for range 2 {
		require.NoError(t, b.ImportUsage(ctx))
		_, err = b.DB.Exec(ctx, `UPDATE usage_charges SET charged = false`) // as after a crash
		require.NoError(t, err)
		require.NoError(t, b.SendCharges(ctx))
	}
	b.requireEqual()
	require.EqualValues(t, 300+4*usedPerCall, b.used("acme"))
	b.log.Reset()
	_, err = b.ChatShadow(ctx, "overspent", "shadow-4", "hi")
	require.ErrorIs(t, err, ErrOverLimit)
	require.Empty(t, b.log.String(), "both agree")

	// A process of the old code is found by the next import.
	require.NoError(t, b.incrementUsage(ctx, "umbrella", 1))
	require.NoError(t, b.ImportUsage(ctx))
	require.NoError(t, b.incrementUsage(ctx, "umbrella", 1))
	require.Equal(t, earmark.CodeIdempotencyMismatch, earmark.ErrorCode(b.ImportUsage(ctx)))
	require.NoError(t, b.incrementUsage(ctx, "umbrella", -1))
	b.requireEqual()

	b.switchOver()

	// The way back: the counter has everything.
	allowed, err := b.checkUsageAllowed(ctx, "umbrella", 1000-b.used("umbrella"))
	require.NoError(t, err)
	require.True(t, allowed)
	_, _ = b.ChatShadow(ctx, "umbrella", "back-1", "hi")
	require.NoError(t, b.SendCharges(ctx))
	b.requireEqual()
}

// switchOver lets callers of both kinds race, as while a switch is rolled out, and
// then of the new kind alone.
func (b *env) switchOver() {
	ctx := b.t.Context()
	var calls, denied atomic.Int64
	var group sync.WaitGroup
	for i := range 20 {
		group.Go(func() {
			chat := b.ChatAfter
			if i < 2 {
				chat = b.ChatShadow
			}
			switch _, err := chat(ctx, "umbrella", "switch-"+strconv.Itoa(i), "hi"); {
			case err == nil:
				calls.Add(1)
			case errors.Is(err, ErrOverLimit):
				denied.Add(1)
			default:
				b.t.Errorf("caller %d: %v", i, err)
			}
		})
	}
	group.Wait()
	require.NoError(b.t, b.SendCharges(ctx))
	b.requireEqual()
	require.Equal(b.t, 1+calls.Load()*usedPerCall, b.used("umbrella"))
	require.EqualValues(b.t, 20, calls.Load()+denied.Load())

	before := b.balance("umbrella").Committed
	model := b.Model
	b.Model = func(context.Context, string) (string, int64, error) { return "", 0, errors.New("no model") }
	_, err := b.ChatAfter(ctx, "acme", "fails", "hi")
	require.ErrorContains(b.t, err, "no model")
	// The model may have run: nothing is given back until somebody knows.
	require.ErrorIs(b.t, err, client.ErrUsageUnknown)
	var unsettled *client.UnsettledError
	require.ErrorAs(b.t, err, &unsettled)
	held, err := b.Earmark.Reservation(ctx, unsettled.ReservationID)
	require.NoError(b.t, err)
	require.Equal(b.t, earmark.StateHeld, held.State)
	require.Equal(b.t, earmark.OnExpiryCommit, held.OnExpiry)
	_, err = b.Earmark.Commit(ctx, held.ID, earmark.Amounts{"tokens": 0})
	require.NoError(b.t, err)
	b.Model = func(context.Context, string) (string, int64, error) {
		return "", 0, client.NothingSent(errors.New("an empty prompt"))
	}
	_, err = b.ChatAfter(ctx, "acme", "not-sent", "")
	require.ErrorContains(b.t, err, "an empty prompt")
	b.Model = model
	require.Equal(b.t, before, b.balance("umbrella").Committed)
	_, err = b.ChatAfter(ctx, "overspent", "denied", "hi")
	require.ErrorIs(b.t, err, ErrOverLimit)
	b.requireEqual()
}

// The TypeScript is plain enough for Node.js to run without its types. Its client is built first.
func TestTypeScript(t *testing.T) {
	t.Parallel()
	b := setup(t)
	require.NoError(t, b.CreateBudgets(t.Context()))
	dir := t.TempDir()
	root, err := stack.ModuleRoot()
	require.NoError(t, err)
	output, err := exec.CommandContext(t.Context(), filepath.Join(root, "tools", "typescript.sh"), "build").CombinedOutput()
	require.NoError(t, err, "%s", output)
	require.NoError(t, os.MkdirAll(filepath.Join(dir, "node_modules", "@earmark-dev"), 0o750))
	require.NoError(t, os.Symlink(filepath.Join(root, "clients", "typescript"), filepath.Join(dir, "node_modules", "@earmark-dev", "client")))
	sources, err := filepath.Glob("*.ts")
	require.NoError(t, err)
	require.NotEmpty(t, sources)
	for _, source := range append(sources, filepath.Join("testdata", "run.mjs")) {
		code, err := os.ReadFile(source)
		require.NoError(t, err)
		name := strings.TrimSuffix(filepath.Base(source), ".ts")
		if name != filepath.Base(source) {
			name += ".mjs"
		}
		code = bytes.ReplaceAll(code, []byte(`.ts";`), []byte(`.mjs";`))
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), code, 0o600))
	}
	cmd := exec.CommandContext(t.Context(), "node", filepath.Join(dir, "run.mjs"), "umbrella", strconv.FormatInt(b.used("umbrella"), 10))
	cmd.Env = append(os.Environ(), "EARMARK_URL="+b.server.URL)
	output, err = cmd.CombinedOutput()
	require.NoError(t, err, "%s", output)
}

var fenced = regexp.MustCompile("(?s)\n```(go|ts|sql)\n(.*?\n)```\n")

// Every piece of code in the document is in the file that it was taken from.
func TestDocumentShowsThisCode(t *testing.T) {
	t.Parallel()
	document, err := os.ReadFile(filepath.Join("..", "..", "docs", "migrating.md"))
	require.NoError(t, err)
	shown := map[string]bool{}
	for _, block := range fenced.FindAllStringSubmatch(string(document), -1) {
		sources, err := filepath.Glob("*." + block[1])
		require.NoError(t, err)
		found := false
		for _, source := range sources {
			code, err := os.ReadFile(source)
			require.NoError(t, err)
			if strings.Contains(string(code), block[2]) {
				found, shown[source] = true, true
			}
		}
		require.True(t, found, "docs/migrating.md has code that is in no file:\n%s", block[2])
	}
	for _, source := range []string{"schema.sql", "before.go", "shadow.go", "import.go", "after.go", "before.ts", "shadow.ts", "after.ts"} {
		require.True(t, shown[source], "%s is not in docs/migrating.md", source)
	}
}
