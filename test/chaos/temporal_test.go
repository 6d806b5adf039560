//go:build linux && drills

package chaos_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"
	"golang.org/x/net/dns/dnsmessage"

	"github.com/earmark-dev/earmark/internal/devstack"
	"github.com/earmark-dev/earmark/internal/stack"
)

// Roles of the nodes of a Temporal cluster.
const (
	roleFrontend = "frontend"
	roleHistory  = "history"
	roleMatching = "matching"
	roleWorker   = "worker"
)

var roles = []string{roleFrontend, roleHistory, roleMatching, roleWorker}

const (
	historyShards = 64
	// memberLimit bounds how long a node may take until the others see it.
	memberLimit = 2 * time.Minute
	// temporalHost is the name that clients resolve to the addresses of all frontends.
	temporalHost = "temporal.test"
)

// temporalCluster is a Temporal of several nodes, each a process with an address of its own, on a Postgres of its own.
type temporalCluster struct {
	t        testing.TB
	dir      string
	server   *devstack.Postgres
	postgres *pgx.ConnConfig
	network  string // the first two bytes of the nodes' addresses
	ports    []int  // of the services, by role, and then of their membership
	nodes    []*temporalNode
	names    *nameServer
}

type temporalNode struct {
	*stack.Process
	role, ip string
}

// newTemporalCluster starts the nodes, as many of each role as counts says, and creates the namespace default. Schemas,
// namespace and dynamic settings are those of docker-compose.yml. With fast, its Postgres is not durable.
func newTemporalCluster(tb testing.TB, fast bool, counts map[string]int) *temporalCluster {
	tb.Helper()
	dir := serverDir(tb)
	server, err := devstack.StartPostgres(tb.Context(), devstack.PostgresOptions{Dir: dir, Superuser: true, Fast: fast})
	require.NoError(tb, err)
	tb.Cleanup(func() { require.NoError(tb, server.Stop(context.Background())) })
	config, err := pgx.ParseConfig(server.URL())
	require.NoError(tb, err)

	c := &temporalCluster{t: tb, dir: filepath.Dir(dir), server: server, postgres: config, network: fmt.Sprintf("127.%d", 1+rand.IntN(254)), ports: stack.FreePorts(tb, 2*len(roles)), names: newNameServer(tb)}
	c.createSchemas()
	for _, role := range roles {
		for range counts[role] {
			c.add(role)
			// The first node ever describes the cluster; one that tries to at the same time fails.
			stack.Eventually(tb, memberLimit, "the description of the cluster", func() bool { return c.count("SELECT count(*) FROM cluster_metadata_info") > 0 })
		}
	}
	for _, n := range c.nodes {
		c.awaitMember(n)
	}
	c.createNamespace()
	return c
}

// createSchemas runs the script of docker-compose.yml.
func (c *temporalCluster) createSchemas() {
	c.t.Helper()
	root, err := stack.ModuleRoot()
	require.NoError(c.t, err)
	module, err := exec.Command("go", "list", "-C", filepath.Join(root, "tools", "temporal-server"), "-m", "-f", "{{.Dir}}", "go.temporal.io/server").Output()
	require.NoError(c.t, err)
	c.run("temporal-schema.sh", "SCHEMA_DIR="+filepath.Join(strings.TrimSpace(string(module)), "schema"), "SQL_PLUGIN=postgres12_pgx", "SQL_HOST="+c.postgres.Host,
		fmt.Sprintf("SQL_PORT=%d", c.postgres.Port), "SQL_USER="+c.postgres.User, "SQL_PASSWORD="+c.postgres.Password)
}

// createNamespace runs the script of docker-compose.yml.
func (c *temporalCluster) createNamespace() {
	c.t.Helper()
	frontend := c.of(roleFrontend)[0]
	c.run("temporal-namespace.sh", "TEMPORAL_ADDRESS="+c.grpcAddress(frontend), "TEMPORAL_NAMESPACE=default")
}

// run runs a script of deploy/compose.
func (c *temporalCluster) run(script string, env ...string) {
	c.t.Helper()
	root, err := stack.ModuleRoot()
	require.NoError(c.t, err)
	cmd := exec.Command("sh", filepath.Join(root, "deploy", "compose", script))
	cmd.Env = append(os.Environ(), env...)
	output, err := cmd.CombinedOutput()
	require.NoError(c.t, err, "%s:\n%s", script, output)
}

// address is where clients find all frontends: they resolve the name and take turns.
func (c *temporalCluster) address() string {
	return fmt.Sprintf("dns://%s/%s:%d", c.names.address(), temporalHost, c.port(roleFrontend))
}

// port is where every node of a role listens, on an address of its own.
func (c *temporalCluster) port(role string) int { return c.ports[2*slices.Index(roles, role)] }

func (c *temporalCluster) grpcAddress(n *temporalNode) string {
	return fmt.Sprintf("%s:%d", n.ip, c.port(n.role))
}

func (c *temporalCluster) of(role string) []*temporalNode {
	var found []*temporalNode
	for _, n := range c.nodes {
		if n.role == role {
			found = append(found, n)
		}
	}
	return found
}

// keepAlive lets the nodes notice within 12 s that another one hangs. It takes the dynamic settings
// system.enableInternode…KeepAlive.
const keepAlive = "clientConnectionConfig: {keepAliveClientParameters: {keepAliveTime: 10s, keepAliveTimeout: 2s, keepAlivePermitWithoutStream: true}}, " +
	"keepAliveServerConfig: {keepAliveEnforcementPolicy: {minTime: 5s, permitWithoutStream: true}}"

// configuration of a node: the one of Temporal's image, for a single service.
const configuration = `
log: {stdout: true, level: warn}
persistence:
  defaultStore: default
  visibilityStore: visibility
  numHistoryShards: %[1]d
  datastores:
    default: {sql: {pluginName: postgres12_pgx, databaseName: temporal, connectAddr: "%[2]s", connectProtocol: tcp, user: %[3]s, password: %[4]s, maxConns: 10, maxIdleConns: 10}}
    visibility: {sql: {pluginName: postgres12_pgx, databaseName: temporal_visibility, connectAddr: "%[2]s", connectProtocol: tcp, user: %[3]s, password: %[4]s, maxConns: 2, maxIdleConns: 2}}
global:
  membership: {maxJoinDuration: 30s, broadcastAddress: "%[5]s"}
services:
  frontend: {rpc: {grpcPort: %[6]d, membershipPort: %[7]d, bindOnIP: "%[5]s", %[16]s}}
  history: {rpc: {grpcPort: %[8]d, membershipPort: %[9]d, bindOnIP: "%[5]s", %[16]s}}
  matching: {rpc: {grpcPort: %[10]d, membershipPort: %[11]d, bindOnIP: "%[5]s", %[16]s}}
  worker: {rpc: {grpcPort: %[12]d, membershipPort: %[13]d, bindOnIP: "%[5]s", %[16]s}}
clusterMetadata:
  enableGlobalNamespace: false
  failoverVersionIncrement: 10
  masterClusterName: active
  currentClusterName: active
  clusterInformation: {active: {enabled: true, initialFailoverVersion: 1, rpcName: frontend, rpcAddress: "%[14]s"}}
publicClient: {hostPort: "%[14]s"}
dynamicConfigClient: {filepath: "%[15]s", pollInterval: 60s}
`

// add starts one more node. It does not wait until the others see it; see awaitMember.
func (c *temporalCluster) add(role string) *temporalNode {
	c.t.Helper()
	root, err := stack.ModuleRoot()
	require.NoError(c.t, err)
	number := len(c.of(role)) + 1
	n := &temporalNode{role: role, ip: fmt.Sprintf("%s.%d.%d", c.network, 1+slices.Index(roles, role), number)}
	name := fmt.Sprintf("temporal-%s-%d", role, number)
	file := filepath.Join(c.dir, name+".yaml")
	// The first frontend may be away; the server's own worker takes the address of the second then.
	values := []any{historyShards, net.JoinHostPort(c.postgres.Host, fmt.Sprint(c.postgres.Port)), c.postgres.User, c.postgres.Password, n.ip}
	for _, port := range c.ports {
		values = append(values, port)
	}
	values = append(values, fmt.Sprintf("%s.1.%d:%d", c.network, 1+number%2, c.port(roleFrontend)), filepath.Join(root, "deploy", "compose", "temporal-dynamicconfig.yaml"), keepAlive)
	require.NoError(c.t, os.WriteFile(file, fmt.Appendf(nil, configuration, values...), 0o600))
	n.Process = stack.NewProcess(c.t, name, os.Environ(), filepath.Join(root, "bin", "temporal-server"), "--config-file", file, "--allow-no-auth", "start", "--service", role)
	n.Start()
	c.nodes = append(c.nodes, n)
	if role == roleFrontend {
		c.names.add(temporalHost, n.ip)
	}
	return n
}

// membership numbers of the roles in Temporal's table.
var memberRoles = map[string]int{roleFrontend: 1, roleHistory: 2, roleMatching: 3, roleWorker: 4}

// awaitMember waits until a node answers and is registered.
func (c *temporalCluster) awaitMember(n *temporalNode) {
	c.t.Helper()
	stack.Eventually(c.t, memberLimit, "node "+n.role+" "+n.ip+" to join", func() bool {
		require.True(c.t, n.Alive(), "the node has ended:\n%s", n.Log())
		conn, err := net.DialTimeout("tcp", c.grpcAddress(n), time.Second)
		if err != nil {
			return false
		}
		_ = conn.Close()
		return c.count("SELECT count(*) FROM cluster_membership WHERE role = $1 AND rpc_address = $2 AND record_expiry > now() AT TIME ZONE 'UTC'", memberRoles[n.role], n.ip) > 0
	})
}

func (c *temporalCluster) count(sql string, args ...any) (count int) {
	c.t.Helper()
	c.query(func(conn *pgx.Conn) error { return conn.QueryRow(context.Background(), sql, args...).Scan(&count) })
	return count
}

// writes of its Postgres.
func (c *temporalCluster) writes() (w writes) {
	c.t.Helper()
	c.query(func(conn *pgx.Conn) error {
		return conn.QueryRow(context.Background(), writesSQL).Scan(&w.log, &w.commits)
	})
	return w
}

func (c *temporalCluster) query(run func(conn *pgx.Conn) error) {
	c.t.Helper()
	config := c.postgres.Copy()
	config.Database = "temporal"
	conn, err := pgx.ConnectConfig(context.Background(), config)
	require.NoError(c.t, err)
	defer func() { _ = conn.Close(context.Background()) }()
	require.NoError(c.t, run(conn))
}

// shards are the generations of the history shards: each new owner raises that of its shard.
func (c *temporalCluster) shards() map[int]int64 {
	c.t.Helper()
	generations := map[int]int64{}
	c.query(func(conn *pgx.Conn) error {
		rows, err := conn.Query(context.Background(), "SELECT shard_id, range_id FROM shards")
		if err != nil {
			return err
		}
		var shard int
		var generation int64
		_, err = pgx.ForEachRow(rows, []any{&shard, &generation}, func() error {
			generations[shard] = generation
			return nil
		})
		return err
	})
	return generations
}

// moved counts the shards that got a new owner.
func moved(before, after map[int]int64) (count int) {
	for shard, generation := range after {
		if generation > before[shard] {
			count++
		}
	}
	return count
}

// nameServer answers which addresses a name has, as the DNS of a cluster does for a service without an address.
type nameServer struct {
	conn net.PacketConn

	mu        sync.Mutex
	addresses map[string][]string
}

func newNameServer(tb testing.TB) *nameServer {
	tb.Helper()
	conn, err := net.ListenPacket("udp4", "127.0.0.1:0")
	require.NoError(tb, err)
	s := &nameServer{conn: conn, addresses: map[string][]string{}}
	done := make(chan struct{})
	go func() {
		defer close(done)
		s.serve()
	}()
	tb.Cleanup(func() {
		_ = conn.Close()
		<-done
	})
	return s
}

func (s *nameServer) address() string { return s.conn.LocalAddr().String() }

func (s *nameServer) add(name, ip string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.addresses[name] = append(s.addresses[name], ip)
}

func (s *nameServer) serve() {
	buffer := make([]byte, 1500)
	for {
		n, from, err := s.conn.ReadFrom(buffer)
		if err != nil {
			return
		}
		if reply, err := s.reply(buffer[:n]); err == nil {
			_, _ = s.conn.WriteTo(reply, from)
		}
	}
}

func (s *nameServer) reply(question []byte) ([]byte, error) {
	var message dnsmessage.Message
	if err := message.Unpack(question); err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	reply := dnsmessage.Message{Header: dnsmessage.Header{ID: message.ID, Response: true, Authoritative: true}, Questions: message.Questions}
	for _, q := range message.Questions {
		known := s.addresses[strings.TrimSuffix(q.Name.String(), ".")]
		if known == nil {
			reply.RCode = dnsmessage.RCodeNameError
		}
		if q.Type != dnsmessage.TypeA {
			continue
		}
		for _, ip := range known {
			reply.Answers = append(reply.Answers, dnsmessage.Resource{
				Header: dnsmessage.ResourceHeader{Name: q.Name, Type: q.Type, Class: q.Class, TTL: 1},
				Body:   &dnsmessage.AResource{A: [4]byte(net.ParseIP(ip).To4())},
			})
		}
	}
	return reply.Pack()
}

// TestTemporalCluster kills, freezes and adds each kind of node of a Temporal cluster with several Earmark servers and
// workers, under load.
func TestTemporalCluster(t *testing.T) {
	temporal := newTemporalCluster(t, true, map[string]int{roleFrontend: 2, roleHistory: 3, roleMatching: 2, roleWorker: 1})
	t.Logf("Temporal runs as %d processes", len(temporal.nodes))
	c := newBareCluster(t, stack.Options{
		OwnPostgres: true, Durable: true, TemporalAddress: temporal.address(), Grace: grace, AdmissionDeadline: drillDeadline, Keys: true,
	})
	c.populate(3, 3, "--without-worker")
	x := newDrill(t, c)

	for _, role := range roles {
		victim := temporal.of(role)[0]
		before := temporal.shards()
		x.step("kill -9 "+role, victim.Kill)
		victim.Start()
		temporal.awaitMember(victim)
		t.Logf("%d of %d shards have a new owner", moved(before, temporal.shards()), historyShards)

		victim = temporal.of(role)[len(temporal.of(role))-1]
		before = temporal.shards()
		x.step("freeze "+role, victim.Pause)
		victim.Resume()
		time.Sleep(drillRest)
		t.Logf("%d of %d shards have a new owner", moved(before, temporal.shards()), historyShards)

		before = temporal.shards()
		x.during("add "+role, func() { temporal.awaitMember(temporal.add(role)) })
		t.Logf("%d of %d shards have a new owner", moved(before, temporal.shards()), historyShards)
		if role == roleHistory {
			require.NotZero(t, moved(before, temporal.shards()), "no shard moved to the new node")
		}
	}
	for _, n := range []*node{c.nodes[0], c.nodes[3]} { // a server and a worker
		x.during("kill -9 "+n.name, func() {
			c.broken.breaks(n.name)
			n.Kill()
			time.Sleep(drillFault)
			c.startNode(n)
		})
	}
	for _, n := range []*node{c.nodes[1], c.nodes[4]} {
		x.during("freeze "+n.name, func() {
			c.broken.breaks(n.name)
			n.Pause()
			time.Sleep(drillFault)
			n.Resume()
			c.broken.works(n.name)
		})
	}
	for _, n := range []*node{c.nodes[2], c.nodes[5]} {
		x.during("SIGTERM "+n.name, func() {
			c.broken.breaks(n.name)
			n.Signal(syscall.SIGTERM)
			n.Wait(endLimit)
			c.startNode(n)
		})
	}
	x.finish()
}
