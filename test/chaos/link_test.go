//go:build unix

package chaos_test

import (
	"context"
	"encoding/json"
	"math/rand/v2"
	"net"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/Shopify/toxiproxy/v2"
	"github.com/rs/zerolog"
	"github.com/stretchr/testify/require"

	"github.com/earmark-dev/earmark/internal/stack"
)

// removeLimit bounds how long the proxy may take to let go of a toxic. One that does
// not is replaced, and its connections are left hanging.
const removeLimit = 10 * time.Second

// link is a way between two processes that can be broken.
type link struct {
	t      *testing.T
	name   string
	server *toxiproxy.ApiServer
	proxy  *toxiproxy.Proxy
	toxics []string // in force, by name
}

func newProxies() *toxiproxy.ApiServer {
	zerolog.SetGlobalLevel(zerolog.Disabled) // some toxics log past the logger they are given
	return toxiproxy.NewServer(toxiproxy.NewMetricsContainer(nil), zerolog.Nop())
}

func newLink(t *testing.T, server *toxiproxy.ApiServer, name, upstream string) *link {
	t.Helper()
	address := net.JoinHostPort("127.0.0.1", strconv.Itoa(stack.FreePorts(t, 1)[0]))
	l := &link{t: t, name: name, server: server, proxy: toxiproxy.NewProxy(server, name, address, upstream)}
	require.NoError(t, l.proxy.Start())
	t.Cleanup(func() { go l.proxy.Stop() }) // which waits for ever where a toxic is stuck
	return l
}

// address is where the link is entered; it stays the same.
func (l *link) address() string { return l.proxy.Listen }

// cut closes every connection and refuses new ones; join lets them in again.
func (l *link) cut()  { l.proxy.Stop() }
func (l *link) join() { require.NoError(l.t, l.proxy.Start()) }

// add puts a toxic on what flows in one direction, "upstream" or "downstream".
func (l *link) add(toxic, direction string, attributes map[string]int64) {
	l.t.Helper()
	spec, err := json.Marshal(map[string]any{"type": toxic, "stream": direction, "attributes": attributes})
	require.NoError(l.t, err)
	added, err := l.proxy.Toxics.AddToxicJson(strings.NewReader(string(spec)))
	require.NoError(l.t, err)
	l.toxics = append(l.toxics, added.Name)
}

// clear takes all toxics away.
func (l *link) clear() {
	l.t.Helper()
	done := make(chan struct{})
	go func() {
		defer close(done)
		l.proxy.Toxics.ResetToxics(context.Background())
	}()
	l.toxics = nil
	select {
	case <-done:
	case <-time.After(removeLimit):
		l.replace()
	}
}

// replace puts a new proxy in the place of one that is stuck.
func (l *link) replace() {
	l.t.Helper()
	l.t.Logf("the proxy %s is stuck and is replaced", l.name)
	stuck := l.proxy
	go stuck.Stop()
	l.proxy = toxiproxy.NewProxy(l.server, l.name, stuck.Listen, stuck.Upstream)
	stack.Eventually(l.t, removeLimit, "the port of "+l.name, func() bool { return l.proxy.Start() == nil })
}

// damage is one way to break a link. harmful says that what needs the link cannot
// count on it meanwhile, as it can on one that is slow.
type damage struct {
	name    string
	harmful bool
	begin   func(l *link, rng *rand.Rand)
	end     func(l *link)
}

// directions are those that a toxic is put on.
func directions(rng *rand.Rand) []string {
	return [][]string{{"upstream"}, {"downstream"}, {"upstream", "downstream"}}[rng.IntN(3)]
}

func toxic(name, kind string, harmful bool, attributes func(rng *rand.Rand) map[string]int64) damage {
	return damage{name: name, harmful: harmful, end: (*link).clear, begin: func(l *link, rng *rand.Rand) {
		for _, direction := range directions(rng) {
			l.add(kind, direction, attributes(rng))
		}
	}}
}

// damages are all of them.
func damages() []damage {
	return []damage{
		{name: "cut", harmful: true, begin: func(l *link, _ *rand.Rand) { l.cut() }, end: (*link).join},
		toxic("latency", "latency", false, func(rng *rand.Rand) map[string]int64 {
			return map[string]int64{"latency": 20 + rng.Int64N(280), "jitter": 10 + rng.Int64N(90)}
		}),
		toxic("half-open", "timeout", true, func(*rand.Rand) map[string]int64 { return map[string]int64{"timeout": 0} }),
		toxic("slow close", "slow_close", false, func(rng *rand.Rand) map[string]int64 { return map[string]int64{"delay": 500 + rng.Int64N(4500)} }),
		toxic("reset", "reset_peer", true, func(rng *rand.Rand) map[string]int64 { return map[string]int64{"timeout": rng.Int64N(500)} }),
		toxic("bandwidth", "bandwidth", false, func(rng *rand.Rand) map[string]int64 { return map[string]int64{"rate": 4 + rng.Int64N(28)} }),
	}
}
