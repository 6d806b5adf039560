//go:build unix

package chaos_test

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"
	"github.com/stretchr/testify/require"

	"github.com/earmark-dev/earmark/internal/stack"
)

// Sizes of a history. The limit is reached soon, so that admissions are denied too.
const (
	linearClients = 6
	linearCalls   = 30 // of each client
	linearLimit   = 1000
	linearMost    = 150 // of one reservation
	// impatientIn is how many calls there are for one whose caller leaves at once, and
	// mortalCallIn for one whose caller never asks again. Each of those doubles the
	// search for an order.
	impatientIn  = 10
	mortalCallIn = 60
	retryPause   = 50 * time.Millisecond
	// linearCheck bounds the search, which takes milliseconds as a rule.
	linearCheck = 10 * time.Second
)

// account is one budget, as a client sees it. An error means that the outcome is
// not known.
type account interface {
	reserve(ctx context.Context, key string, amount int64) (admitted bool, err error)
	commit(ctx context.Context, key string, usage int64) (done bool, err error)
	release(ctx context.Context, key string) (done bool, err error)
	balance(ctx context.Context) (reserved, committed int64, err error)
}

// The answers to clients of one budget, from two servers of which one is killed in
// between, is as if they had been served one after the other.
func TestLinearizable(t *testing.T) {
	t.Parallel()
	s := stack.New(t, stack.Options{})
	servers := []*stack.Server{s.Serve().Ready(), s.Serve().Ready()}
	history := record(t, newServed(t, servers), func(progress func() int) {
		stack.Eventually(t, time.Minute, "some calls", func() bool { return progress() > linearClients*linearCalls/3 })
		servers[1].Restart()
	})
	result, info := porcupine.CheckOperationsVerbose(budgetModel, history, linearCheck)
	if result != porcupine.Ok {
		path := filepath.Join(os.TempDir(), fmt.Sprintf("earmark-history-%d.html", time.Now().UnixNano()))
		require.NoError(t, porcupine.VisualizePath(budgetModel, info, path))
		t.Logf("the history is in %s", path)
	}
	require.Equal(t, porcupine.Ok, result)
}

// The same clients and the same check on what Earmark replaces, on the same
// Postgres: it checks first, and adds later. The check has to find that, and that
// nothing is wrong once a lock guards both.
func TestCheckThenAddIsNotLinearizable(t *testing.T) {
	t.Parallel()
	for guarded, want := range map[bool]porcupine.CheckResult{false: porcupine.Illegal, true: porcupine.Ok} {
		t.Run(fmt.Sprintf("guarded=%t", guarded), func(t *testing.T) {
			t.Parallel()
			s := stack.New(t, stack.Options{})
			s.Exec("CREATE TABLE usage_counter (reserved bigint NOT NULL, committed bigint NOT NULL)")
			s.Exec("INSERT INTO usage_counter VALUES (0, 0)")
			history := record(t, &counter{pool: s.Pool(), guarded: guarded, holds: map[string]hold{}}, func(func() int) {})
			require.Equal(t, want, porcupine.CheckOperationsTimeout(budgetModel, history, linearCheck))
		})
	}
}

// record lets clients work on one account at once, and returns what each asked, was
// told, and when. meanwhile runs beside them.
func record(t *testing.T, a account, meanwhile func(progress func() int)) []porcupine.Operation {
	t.Helper()
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	r := &recorder{account: a, begun: time.Now()}
	var group sync.WaitGroup
	for n := range linearClients {
		group.Go(func() {
			rng := rand.New(rand.NewPCG(seed, uint64(n)))
			for i := range linearCalls {
				r.step(n, i, rng)
			}
		})
	}
	meanwhile(r.progress)
	group.Wait()
	known := map[string]int{}
	for _, op := range r.history {
		in, out := op.Input.(asked), op.Output.(told)
		known[in.verb]++
		if out.unknown {
			known["unknown"]++
		}
		if in.verb == verbReserve && !out.unknown && !out.yes {
			known["denied"]++
		}
	}
	t.Logf("%d operations: %v", len(r.history), known)
	require.NotZero(t, known["denied"])
	return r.history
}

// recorder makes the calls and keeps the history.
type recorder struct {
	account
	begun time.Time

	mu      sync.Mutex
	history []porcupine.Operation
	keys    []string // of what is known to be admitted
}

// asked and told hold the input and the output of an operation.
type asked struct {
	verb   string
	key    string
	amount int64
}

type told struct {
	unknown             bool
	yes                 bool
	reserved, committed int64
}

const verbBalance = "balance"

func (r *recorder) progress() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.history)
}

// step makes one call, and makes it again until its outcome is known, as clients do.
func (r *recorder) step(client, n int, rng *rand.Rand) {
	in := r.next(client, n, rng)
	op := porcupine.Operation{ClientId: client, Input: in, Call: int64(time.Since(r.begun))}
	mortal := rng.IntN(mortalCallIn) == 0
	out, err := r.ask(in, mortal || rng.IntN(impatientIn) == 0)
	sure := err == nil
	for ; err != nil && !mortal; out, err = r.ask(in, false) {
		time.Sleep(retryPause)
	}
	switch {
	case err != nil && in.verb == verbBalance:
		return // nobody knows what it would have said, and it changes nothing
	case err != nil, in.verb == verbReserve && !out.yes && !sure: // a no does not take back what an earlier call may yet reserve
		out = told{unknown: true}
		op.Return = math.MaxInt64
	default:
		op.Return = int64(time.Since(r.begun))
	}
	op.Output = out
	r.mu.Lock()
	defer r.mu.Unlock()
	r.history = append(r.history, op)
	if in.verb == verbReserve && out.yes {
		r.keys = append(r.keys, in.key)
	}
}

// ask makes a call once.
func (r *recorder) ask(in asked, impatient bool) (out told, err error) {
	ctx := context.Background()
	if impatient {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, rand.N(20*time.Millisecond))
		defer cancel()
	}
	switch in.verb {
	case verbReserve:
		out.yes, err = r.reserve(ctx, in.key, in.amount)
	case verbCommit:
		out.yes, err = r.commit(ctx, in.key, in.amount)
	case verbRelease:
		out.yes, err = r.release(ctx, in.key)
	default:
		out.reserved, out.committed, err = r.balance(ctx)
	}
	return out, err
}

// next draws a call. Settlements are of recent reservations, whoever made them, so
// that clients meet.
func (r *recorder) next(client, n int, rng *rand.Rand) asked {
	r.mu.Lock()
	defer r.mu.Unlock()
	choice := rng.IntN(10)
	if choice < 4 || len(r.keys) == 0 {
		return asked{verb: verbReserve, key: fmt.Sprintf("client-%d-%d", client, n), amount: 1 + rng.Int64N(linearMost)}
	}
	recent := r.keys[max(len(r.keys)-1-rng.IntN(2*linearClients), 0)]
	switch {
	case choice < 6:
		return asked{verb: verbCommit, key: recent, amount: rng.Int64N(linearMost / 5)}
	case choice < 8:
		return asked{verb: verbRelease, key: recent}
	}
	return asked{verb: verbBalance}
}
