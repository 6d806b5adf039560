package bench

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/earmark-dev/earmark/internal/devstack"
)

const (
	// poolerConnections to Postgres, for all clients of the pooler together.
	poolerConnections = 16
	poolerUser        = "nobody" // PgBouncer refuses to run as root
)

// pooler compares lifecycles on Postgres itself with those through PgBouncer in
// transaction mode.
func (r *run) pooler(ctx context.Context) error {
	port, stop, err := r.services.startPooler(ctx)
	if err != nil {
		return err
	}
	defer stop()
	pooled := r.deployments[pooledName]
	if pooled.databaseURL, err = throughPooler(pooled.databaseURL, port); err != nil {
		return err
	}
	var ways []*way
	for _, name := range []string{emptyName, pooledName} {
		d, err := r.serving(ctx, name)
		if err != nil {
			return err
		}
		ways = append(ways, d.byHTTP(name, name, scopeOf))
	}
	if err := r.rounds(ctx, ways, func(w *way) error {
		b, err := r.closed(ctx, w, r.Clients, r.Duration)
		if err == nil {
			r.keepPath("pooler."+w.key, b)
		}
		return err
	}); err != nil {
		return err
	}
	f := &r.report.figures
	f.ratio("pooler.ratio", "pooler."+pooledName+".lifecycles_per_second", "pooler."+emptyName+".lifecycles_per_second")
	table := Table{Title: fmt.Sprintf("Lifecycles through PgBouncer in transaction mode, %d clients, %d connections to Postgres", r.Clients, poolerConnections),
		Columns: []string{"path", "lifecycles/s", "× directly", "admission p50, ms", "p99, ms"}}
	for _, row := range [][3]string{{emptyName, "directly", ""}, {pooledName, "through PgBouncer", f.text("pooler.ratio")}} {
		key := "pooler." + row[0]
		table.row(row[1], f.text(key+".lifecycles_per_second"), row[2], f.text(key+".admission_p50_ms"), f.text(key+".admission_p99_ms"))
	}
	r.report.Tables = append(r.report.Tables, table)
	for _, w := range ways { // before the pooler ends
		if err := w.on.stop(ctx); err != nil {
			return err
		}
	}
	_, err = pooled.audit(ctx)
	return err
}

// throughPooler is a database URL that goes through the pooler, and that keeps no
// prepared statements: in transaction mode they stay behind on somebody else's
// connection.
func throughPooler(databaseURL string, port int) (string, error) {
	u, err := url.Parse(databaseURL)
	if err != nil {
		return "", err
	}
	u.Host = net.JoinHostPort("127.0.0.1", fmt.Sprint(port))
	query := u.Query()
	query.Set("default_query_exec_mode", "cache_describe")
	u.RawQuery = query.Encode()
	return u.String(), nil
}

// startPooler starts a PgBouncer that is installed on the Postgres of this run.
func (s *services) startPooler(ctx context.Context) (port int, stop func(), err error) {
	if s.postgres == nil {
		return 0, nil, errors.New("the pooler is measured on a Postgres of this run's own; leave --database-url out")
	}
	binary, err := exec.LookPath("pgbouncer")
	if err != nil {
		if binary, err = exec.LookPath("/usr/sbin/pgbouncer"); err != nil {
			return 0, nil, errors.New("pgbouncer was not found; install it (Debian: apt install pgbouncer)")
		}
	}
	server, err := pgx.ParseConfig(s.options.DatabaseURL)
	if err != nil {
		return 0, nil, err
	}
	if port, err = devstack.FreePort(); err != nil {
		return 0, nil, err
	}
	users, config := filepath.Join(s.dir, "pooler-users.txt"), filepath.Join(s.dir, "pooler.ini")
	settings := fmt.Sprintf(`[databases]
* = host=127.0.0.1 port=%d
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = %d
unix_socket_dir =
auth_type = trust
auth_file = %s
pool_mode = transaction
default_pool_size = %d
max_client_conn = 500
`, server.Port, port, users, poolerConnections)
	for name, content := range map[string]string{users: fmt.Sprintf("%q %q\n", server.User, server.Password), config: settings} {
		if err := os.WriteFile(name, []byte(content), 0o644); err != nil { //nolint:gosec // read by another user where this one is root
			return 0, nil, err
		}
	}
	args := []string{config}
	if os.Geteuid() == 0 {
		args = append([]string{"-u", poolerUser}, args...)
	}
	child, err := devstack.StartChild("PgBouncer", exec.Command(binary, args...), filepath.Join(s.dir, "pooler.log"))
	if err != nil {
		return 0, nil, err
	}
	stop = func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopLimit)
		defer cancel()
		_ = child.Stop(ctx) // what hangs is killed
	}
	ctx, cancel := whileAlive(ctx, child)
	defer cancel()
	dialer := net.Dialer{Timeout: time.Second}
	if err := await(ctx, "PgBouncer", func() error {
		conn, err := dialer.DialContext(ctx, "tcp", net.JoinHostPort("127.0.0.1", fmt.Sprint(port)))
		if err == nil {
			err = conn.Close()
		}
		return err
	}); err != nil {
		stop()
		return 0, nil, err
	}
	return port, stop, nil
}
