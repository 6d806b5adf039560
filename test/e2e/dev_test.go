//go:build unix

package e2e_test

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/earmark-dev/earmark"
	"github.com/earmark-dev/earmark/internal/stack"
)

// dev is an `earmark dev` under test.
type dev struct {
	*env
	process *stack.Process
	ports   []int
}

// `earmark dev` keeps what it was given over a restart, leaves nothing running, and
// does not share its directory.
func TestDev(t *testing.T) {
	t.Parallel()
	checkDev(t, nil)
}

// The same for an ordinary user, when the tests run as root.
func TestDevAsOrdinaryUser(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		return // TestDev ran as one
	}
	account, err := user.Lookup("nobody")
	require.NoError(t, err)
	uid, err := strconv.ParseUint(account.Uid, 10, 32)
	require.NoError(t, err)
	gid, err := strconv.ParseUint(account.Gid, 10, 32)
	require.NoError(t, err)
	checkDev(t, &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)})
}

func checkDev(t *testing.T, credential *syscall.Credential) {
	t.Helper()
	d := newDev(t, credential)
	d.start()
	budget := d.budget("acme", "tokens", 1000)
	committed, held := d.hold("committed", tokens("acme", 100, 600)), d.hold("held", tokens("acme", 200, 600))
	require.Contains(t, held.UIURL, held.WorkflowID)
	d.commit(committed.ID, 70).status(t, http.StatusOK)
	d.requireUI()
	require.Contains(t, d.process.Log(), "127.0.0.1:"+strconv.Itoa(d.ports[0]))

	d.requirePrivate(credential == nil)
	second := d.run("--data-dir", d.dataDir())
	require.Equal(t, 1, second.Code)
	require.Contains(t, second.Stderr, "another earmark dev")
	require.Contains(t, second.Stderr, strconv.Itoa(d.process.PID()))
	require.Contains(t, second.Stderr, "--data-dir")

	d.interrupt()
	d.start()
	d.requireBalance(budget, 200, 70)
	require.Equal(t, earmark.StateCommitted, d.reservation(committed.ID).State)
	settled := decoded[earmark.Reservation](t, d.commit(held.ID, 30).status(t, http.StatusOK))
	require.False(t, settled.Late)
	d.requireBalance(budget, 0, 100)
	journal := d.entries(held.ID)
	require.Equal(t, earmark.ActorAPI.String(), journal[len(journal)-1].Actor)

	// kill -9 leaves nothing behind either, and nothing is lost.
	children := d.children()
	d.process.Kill()
	d.requireGone(children)
	d.start()
	d.requireBalance(budget, 0, 100)
	d.hold("after", tokens("acme", 900, 600))
	d.interrupt()
}

// requirePrivate checks that other accounts of the machine can neither read the data nor enter the database.
func (d *dev) requirePrivate(root bool) {
	d.t.Helper()
	closed := fs.FileMode(0o077)
	require.NoError(d.t, filepath.WalkDir(d.dataDir(), func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			if errors.Is(err, fs.ErrNotExist) {
				return nil // Postgres removes files at any time
			}
			return err
		}
		info, err := entry.Info()
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		require.NoError(d.t, err)
		open := info.Mode().Perm() & closed
		if root && path == d.dataDir() {
			open &^= 0o011 // Postgres' own user passes through
		}
		require.Zero(d.t, open, "%s has mode %s", path, info.Mode())
		return nil
	}))

	printed := stack.RunCommand(d.t, cleanEnv(), stack.Binary(d.t), "dev", "--print-database-url", "--data-dir", d.dataDir(), "--postgres-port", strconv.Itoa(d.ports[1]))
	require.Zero(d.t, printed.Code, printed.Stderr)
	address := strings.TrimSpace(printed.Stdout)
	require.Contains(d.t, d.process.Log(), address)
	audited := stack.RunCommand(d.t, cleanEnv(), stack.Binary(d.t), "audit", "--database-url", address)
	require.Zero(d.t, audited.Code, audited.Stderr)
	stranger, _, _ := strings.Cut(address, "&passfile=")
	audited = stack.RunCommand(d.t, append(cleanEnv(), "HOME=/nonexistent"), stack.Binary(d.t), "audit", "--database-url", stranger)
	require.NotZero(d.t, audited.Code)
	require.Contains(d.t, audited.Stderr, "password")

	d.requireClosedTo(strangerID, address)

	healthy := stack.RunCommand(d.t, cleanEnv(), stack.Binary(d.t), "health", "--url", d.base)
	require.Zero(d.t, healthy.Code, healthy.Stderr)
	require.Regexp(d.t, `temporal: its database has \d+ MB`, healthy.Stdout)
}

// strangerID is a user and group that owns nothing here.
const strangerID = 65533

// requireClosedTo tries, as another account of the machine, to read the data and to enter the database with the address
// that `earmark dev` prints. Only root can become somebody else; the modes above are checked for everybody.
func (d *dev) requireClosedTo(id uint32, address string) {
	d.t.Helper()
	if os.Geteuid() != 0 {
		return
	}
	run := func(program string, args ...string) (output string, err error) {
		cmd := exec.Command(program, args...)
		cmd.Dir, cmd.Env = "/", append(cleanEnv(), "HOME=/nonexistent")
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: id, Gid: id}}
		text, err := cmd.CombinedOutput()
		return string(text), err
	}
	for _, file := range []string{"earmark.lock", "postgres/pgpass", "postgres/postgres.log", "postgres/data/PG_VERSION", "temporal/temporal.db", "temporal/temporal.log"} {
		path := filepath.Join(d.dataDir(), file)
		require.FileExists(d.t, path)
		output, err := run("cat", path)
		require.Error(d.t, err, "%s was read", path)
		require.Contains(d.t, output, "Permission denied")
	}
	output, err := run("ls", d.dataDir())
	require.Error(d.t, err, "the directory was listed")
	require.Contains(d.t, output, "Permission denied")

	binary := filepath.Join(d.process.Dir, "earmark")
	output, err = run(binary, "--version") // it can run the program
	require.NoError(d.t, err, output)
	output, err = run(binary, "audit", "--database-url", address)
	require.Error(d.t, err, "entered the database")
	require.Contains(d.t, output, "password")
}

// Temporal's database may go at any time: the ledger stands, and usage is charged.
func TestDevResetsTemporal(t *testing.T) {
	t.Parallel()
	d := newDev(t, nil, "--reset-temporal")
	d.start()
	budget := d.budget("acme", "tokens", 1000)
	held := d.hold("held", tokens("acme", 200, 600))
	database := filepath.Join(d.dataDir(), "temporal", "temporal.db")
	old, err := os.Open(database) // while it is open, a new file cannot get its inode
	require.NoError(t, err)
	defer func() { _ = old.Close() }()
	before, err := old.Stat()
	require.NoError(t, err)
	d.interrupt()

	d.start()
	after, err := os.Stat(database)
	require.NoError(t, err)
	require.False(t, os.SameFile(before, after), "the database is a new one")
	d.requireBalance(budget, 200, 0)
	d.commit(held.ID, 150).status(t, http.StatusOK)
	d.requireBalance(budget, 0, 150)
	d.hold("next", tokens("acme", 100, 600))
	d.interrupt()
}

// A child that dies takes everything with it, and a taken port is named.
func TestDevFailures(t *testing.T) {
	t.Parallel()
	d := newDev(t, nil)
	listener, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(d.ports[2])))
	require.NoError(t, err)
	taken := d.run("--data-dir", d.dataDir(), "--temporal-port", strconv.Itoa(d.ports[2]))
	require.Equal(t, 1, taken.Code)
	require.Contains(t, taken.Stderr, "--temporal-port")
	require.NoError(t, listener.Close())

	d.start()
	children := d.children()
	for _, pid := range children {
		if strings.Contains(commandOf(pid), "temporal") {
			require.NoError(t, syscall.Kill(pid, syscall.SIGKILL))
		}
	}
	require.Equal(t, 1, d.process.Wait(2*moment))
	require.Contains(t, d.process.Log(), "Temporal ended")
	d.requireGone(children)
}

func newDev(t *testing.T, credential *syscall.Credential, flags ...string) *dev {
	t.Helper()
	dir, err := os.MkdirTemp("", "earmark-dev-")
	require.NoError(t, err)
	require.NoError(t, os.Chmod(dir, 0o755))
	t.Cleanup(func() { require.NoError(t, os.RemoveAll(dir)) })
	if credential != nil {
		require.NoError(t, os.Chown(dir, int(credential.Uid), int(credential.Gid)))
	}
	binary := copyInto(t, dir, stack.Binary(t))
	copyInto(t, dir, temporalCLI(t)) // where a user who may not enter this directory finds it
	d := &dev{ports: stack.FreePorts(t, 4)}
	base := "127.0.0.1:" + strconv.Itoa(d.ports[0])
	d.env = &env{api: api{t: t, base: "http://" + base}}
	d.process = stack.NewProcess(t, "dev", append(cleanEnv(), "HOME="+dir), binary, append([]string{"dev", "--data-dir", filepath.Join(dir, "data"), "--addr", base,
		"--postgres-port", strconv.Itoa(d.ports[1]), "--temporal-port", strconv.Itoa(d.ports[2]), "--ui-port", strconv.Itoa(d.ports[3])}, flags...)...)
	d.process.Dir, d.process.Credential = dir, credential
	return d
}

func (d *dev) dataDir() string { return filepath.Join(d.process.Dir, "data") }

func (d *dev) start() {
	d.t.Helper()
	d.process.Start()
	d.process.AwaitLog("Earmark is running.")
	stack.Eventually(d.t, moment, "/readyz", func() bool { return d.do("GET", "/readyz", "").code == http.StatusOK })
}

// run runs another `earmark dev` to its end.
func (d *dev) run(flags ...string) stack.Result {
	d.t.Helper()
	ports := stack.FreePorts(d.t, 4)
	args := []string{"dev", "--addr", fmt.Sprint("127.0.0.1:", ports[0]), "--postgres-port", strconv.Itoa(ports[1]),
		"--temporal-port", strconv.Itoa(ports[2]), "--ui-port", strconv.Itoa(ports[3])}
	return stack.RunCommand(d.t, cleanEnv(), stack.Binary(d.t), append(args, flags...)...)
}

// interrupt is Ctrl-C, after which nothing of it may run or listen.
func (d *dev) interrupt() {
	d.t.Helper()
	children := d.children()
	require.GreaterOrEqual(d.t, len(children), 2, "Postgres and Temporal")
	d.process.Signal(syscall.SIGINT)
	require.Zero(d.t, d.process.Wait(2*moment), d.process.Log())
	for _, pid := range children {
		require.False(d.t, running(pid), "%d %s", pid, commandOf(pid))
	}
	for _, port := range d.ports {
		listener, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
		require.NoError(d.t, err)
		require.NoError(d.t, listener.Close())
	}
}

func (d *dev) requireGone(pids []int) {
	d.t.Helper()
	stack.Eventually(d.t, moment, "the end of all children", func() bool { return !slices.ContainsFunc(pids, running) })
}

func (d *dev) requireUI() {
	d.t.Helper()
	request, err := http.NewRequestWithContext(d.t.Context(), http.MethodGet, fmt.Sprint("http://127.0.0.1:", d.ports[3]), http.NoBody)
	require.NoError(d.t, err)
	response, err := httpClient.Do(request)
	require.NoError(d.t, err)
	defer func() { require.NoError(d.t, response.Body.Close()) }()
	require.Equal(d.t, http.StatusOK, response.StatusCode)
	page, err := io.ReadAll(response.Body)
	require.NoError(d.t, err)
	require.Contains(d.t, strings.ToLower(string(page)), "<html")
}

// children lists every process below the one under test.
func (d *dev) children() []int {
	d.t.Helper()
	found, err := stack.Descendants(d.process.PID())
	require.NoError(d.t, err)
	return found
}

// running counts a zombie as gone: it is whoever reaps it who is late.
func running(pid int) bool {
	output, err := exec.Command("ps", "-o", "stat=", "-p", strconv.Itoa(pid)).Output()
	state := strings.TrimSpace(string(output))
	return err == nil && state != "" && !strings.HasPrefix(state, "Z")
}

func commandOf(pid int) string {
	output, _ := exec.Command("ps", "-o", "args=", "-p", strconv.Itoa(pid)).Output()
	return strings.TrimSpace(string(output))
}

// copyInto puts a program into a directory, by a link where that works.
func copyInto(t *testing.T, dir, program string) string {
	t.Helper()
	target := filepath.Join(dir, filepath.Base(program))
	if os.Link(program, target) == nil {
		return target
	}
	content, err := os.ReadFile(program)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(target, content, 0o755))
	return target
}
