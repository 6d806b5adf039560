//go:build unix

package chaos_test

import (
	"math/rand/v2"
	"syscall"
	"time"

	"github.com/stretchr/testify/require"
)

// endLimit is how long a process may take to end after SIGTERM, with whatever else
// is broken at that time.
const endLimit = 40 * time.Second

// kind is a kind of fault, and what it can befall.
type kind struct {
	name      string
	targets   []target
	exclusive bool // nothing else is broken meanwhile
}

// target is one thing that can be broken. begin and end run on the test's own
// goroutine, one at a time.
type target struct {
	name  string
	begin func(rng *rand.Rand)
	end   func()
}

// kinds are all faults.
func (c *cluster) kinds(d *driver) []kind {
	kinds := append(c.processKinds("serve", c.nodes[:2]), c.processKinds("worker", c.nodes[2:])...)
	kinds = append(kinds, c.postgresKinds()...)
	kinds = append(kinds, c.temporalKinds()...)
	kinds = append(kinds, kind{name: "kill -9 everything", exclusive: true, targets: []target{{
		name: "everything", begin: func(rng *rand.Rand) { c.killEverything(d, rng) }, end: func() {},
	}}})
	return append(kinds, c.linkKinds()...)
}

func (c *cluster) processKinds(role string, nodes []*node) []kind {
	kill, freeze, restart := kind{name: "kill -9 " + role}, kind{name: "freeze " + role}, kind{name: "restart " + role}
	for _, n := range nodes {
		kill.targets = append(kill.targets, target{n.name, func(*rand.Rand) {
			c.broken.breaks(n.name)
			n.Kill()
		}, func() { c.startNode(n) }})
		freeze.targets = append(freeze.targets, target{n.name, func(*rand.Rand) {
			c.broken.breaks(n.name)
			n.Pause()
		}, func() {
			n.Resume()
			c.broken.works(n.name)
		}})
		restart.targets = append(restart.targets, target{n.name, func(*rand.Rand) {
			c.broken.breaks(n.name)
			n.Signal(syscall.SIGTERM)
		}, func() {
			n.Wait(endLimit)
			c.startNode(n)
		}})
	}
	return []kind{kill, freeze, restart}
}

// startNode starts a process, which does not wait for what it needs.
func (c *cluster) startNode(n *node) {
	n.Process.Start()
	c.broken.works(n.name)
}

const (
	postgresName = "postgres"
	temporalName = "temporal"
)

func (c *cluster) postgresKinds() []kind {
	stopped := func(name string, stop func()) kind {
		return kind{name: name + " postgres", targets: []target{{postgresName, func(*rand.Rand) {
			c.broken.breaks(postgresName)
			stop()
		}, func() {
			c.Postgres.Start()
			c.broken.works(postgresName)
		}}}}
	}
	return []kind{
		stopped("restart", c.Postgres.Stop),
		stopped("immediate stop of", c.Postgres.StopAtOnce),
		stopped("kill -9", c.Postgres.Kill),
		{name: "freeze postgres", targets: []target{{postgresName, func(*rand.Rand) {
			c.broken.breaks(postgresName)
			c.Postgres.Pause()
		}, func() {
			c.Postgres.Resume()
			c.broken.works(postgresName)
		}}}},
	}
}

func (c *cluster) temporalKinds() []kind {
	stopped := func(name string, stop func()) kind {
		return kind{name: name + " temporal", targets: []target{{temporalName, func(*rand.Rand) {
			c.broken.breaks(temporalName)
			stop()
		}, func() {
			c.Temporal.Start()
			c.broken.works(temporalName)
		}}}}
	}
	return []kind{
		stopped("restart", c.Temporal.Stop),
		stopped("kill -9", c.Temporal.Kill),
		{name: "freeze temporal", targets: []target{{temporalName, func(*rand.Rand) {
			c.broken.breaks(temporalName)
			c.Temporal.Pause()
		}, func() {
			c.Temporal.Resume()
			c.broken.works(temporalName)
		}}}},
	}
}

// linkKinds are every damage on every pair.
func (c *cluster) linkKinds() []kind {
	pairs := []struct {
		name  string
		nodes []*node
		link  func(n *node) *link
	}{
		{"driver→serve", c.nodes[:2], func(n *node) *link { return n.front }},
		{"serve→postgres", c.nodes[:2], func(n *node) *link { return n.postgres }},
		{"serve→temporal", c.nodes[:2], func(n *node) *link { return n.temporal }},
		{"worker→postgres", c.nodes[2:], func(n *node) *link { return n.postgres }},
		{"worker→temporal", c.nodes[2:], func(n *node) *link { return n.temporal }},
	}
	var kinds []kind
	for _, pair := range pairs {
		for _, damage := range damages() {
			k := kind{name: damage.name + " " + pair.name}
			for _, n := range pair.nodes {
				l := pair.link(n)
				k.targets = append(k.targets, target{l.name, func(rng *rand.Rand) {
					if damage.harmful {
						c.broken.breaks(l.name)
					}
					damage.begin(l, rng)
				}, func() {
					damage.end(l)
					c.broken.works(l.name)
				}})
			}
			kinds = append(kinds, k)
		}
	}
	return kinds
}

// killAll kills every process at once.
func (c *cluster) killAll() {
	c.broken.breaks(postgresName)
	c.broken.breaks(temporalName)
	for _, n := range c.nodes {
		c.broken.breaks(n.name)
		n.Signal(syscall.SIGKILL)
	}
	c.Temporal.Kill()
	c.Postgres.Kill()
	for _, n := range c.nodes {
		n.Wait(endLimit)
	}
}

// startAll starts every process. The first ones do not wait for what they need.
func (c *cluster) startAll() {
	for _, n := range c.nodes {
		c.startNode(n)
	}
	c.Postgres.Start()
	c.broken.works(postgresName)
	c.Temporal.Start()
	c.broken.works(temporalName)
}

// killEverything kills every process at once, starts all of them again, and
// measures how long it takes until both servers admit.
func (c *cluster) killEverything(d *driver, rng *rand.Rand) {
	c.killAll()
	time.Sleep(time.Duration(500+rng.IntN(2500)) * time.Millisecond)

	admitted := d.probe(time.Now())
	c.startAll()
	took := admitted()
	require.NotZero(c.t, took, "nothing is admitted %s after everything was killed and restarted", probeLimit)
	c.t.Logf("admission again %.1f s after everything was killed and restarted", took.Seconds())
	d.recovered(took)
}
