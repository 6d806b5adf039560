//go:build unix

package devstack

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"go.temporal.io/api/workflowservice/v1"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/log"
)

const (
	// temporalStartLimit covers a slow machine: a start takes one to three seconds.
	temporalStartLimit = 60 * time.Second
	// temporalDatabase is the name of the database's file.
	temporalDatabase = "temporal.db"
	// portFlagTemporal and portFlagUI are named in the error when a port is taken.
	portFlagTemporal = "--temporal-port"
	portFlagUI       = "--ui-port"
)

// TemporalOptions say how to start the Temporal development server.
type TemporalOptions struct {
	// Dir holds the database (temporal.db) and the log (temporal.log). It is created if need be, and what
	// is in it is used again.
	Dir string
	// Port of the gRPC frontend on 127.0.0.1; 0 takes a free one.
	Port int
	// UIPort of the web UI on 127.0.0.1; 0 takes a free one.
	UIPort int
	// Headless leaves the UI out.
	Headless bool
	// Log gets a line before anything that takes long; nil for none.
	Log io.Writer
	// InMemory keeps nothing on disk but the log. For tests.
	InMemory bool
	// SearchAttributes to register in the namespace default, by name; the value is a type, such as Keyword.
	SearchAttributes map[string]string
}

// Temporal is a running development server.
type Temporal struct {
	*process
	port   int
	uiPort int
}

// StartTemporal starts a server and waits until the namespace default answers. The server lives until Stop:
// ctx is for the start alone.
func StartTemporal(ctx context.Context, opts TemporalOptions) (*Temporal, error) {
	ctx, cancel := context.WithTimeout(ctx, temporalStartLimit)
	defer cancel()

	binary, err := findTemporal()
	if err != nil {
		return nil, err
	}
	if opts.Dir, err = filepath.Abs(opts.Dir); err != nil {
		return nil, fmt.Errorf("find the Temporal directory: %w", err)
	}
	if err := closeTemporalDir(opts.Dir); err != nil {
		return nil, err
	}
	if opts.Port, err = claimPort(ctx, opts.Port, "Temporal", portFlagTemporal); err != nil {
		return nil, err
	}
	if !opts.Headless {
		if opts.UIPort, err = claimPort(ctx, opts.UIPort, "the Temporal UI", portFlagUI); err != nil {
			return nil, err
		}
	}

	// The server makes its database with the permissions that the umask leaves. The shell is gone after exec.
	cmd := exec.Command("/bin/sh", append([]string{"-c", `umask 077 && exec "$0" "$@"`, binary}, temporalArgs(opts)...)...) //nolint:gosec // the Temporal that was found
	cmd.Dir = opts.Dir
	// Its settings are the arguments: a TEMPORAL_ADDRESS that is meant for clients has no say here.
	cmd.Env = slices.DeleteFunc(os.Environ(), func(v string) bool { return strings.HasPrefix(v, "TEMPORAL_") })
	child, err := startProcess("Temporal", cmd, filepath.Join(opts.Dir, "temporal.log"), syscall.SIGTERM, syscall.SIGKILL)
	if err != nil {
		return nil, err
	}
	if err := awaitTemporal(ctx, child, opts.Port); err != nil {
		return nil, errors.Join(err, child.kill())
	}
	return &Temporal{process: child, port: opts.Port, uiPort: opts.UIPort}, nil
}

// closeTemporalDir makes the directory and closes what is in it to everybody else: histories hold what requests
// are about.
func closeTemporalDir(dir string) error {
	if err := os.MkdirAll(dir, privateDirMode); err != nil {
		return fmt.Errorf("create the Temporal directory: %w", err)
	}
	if err := os.Chmod(dir, privateDirMode); err != nil {
		return fmt.Errorf("close the Temporal directory to others: %w", err)
	}
	for _, file := range temporalFiles(dir) {
		if err := os.Chmod(file, privateFileMode); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("close Temporal's database to others: %w", err)
		}
	}
	return nil
}

// temporalFiles are the database and what SQLite keeps beside it.
func temporalFiles(dir string) []string {
	database := filepath.Join(dir, temporalDatabase)
	return []string{database, database + "-wal", database + "-shm"}
}

// TemporalBytes is the size of the database that a Temporal server keeps in dir, in bytes.
func TemporalBytes(dir string) (bytes int64) {
	for _, file := range temporalFiles(dir) {
		if info, err := os.Stat(file); err == nil {
			bytes += info.Size()
		}
	}
	return bytes
}

// RemoveTemporal removes the database that a Temporal server keeps in dir, which must not run.
func RemoveTemporal(dir string) error {
	for _, file := range temporalFiles(dir) {
		if err := os.Remove(file); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("remove Temporal's database: %w", err)
		}
	}
	return nil
}

// Address is the host and port of the gRPC frontend.
func (t *Temporal) Address() string { return hostPort(t.port) }

// UIURL is the address of the web UI, or "" without one.
func (t *Temporal) UIURL() string {
	if t.uiPort == 0 {
		return ""
	}
	return "http://" + hostPort(t.uiPort)
}

func temporalArgs(opts TemporalOptions) []string {
	// The ports of the HTTP API and of the metrics are left out: the server takes free ones.
	args := []string{
		"server", "start-dev", "--ip", loopback, "--port", strconv.Itoa(opts.Port),
		"--log-level", "warn", "--color", "never",
		// One partition is enough for the tasks of one machine. With the default of four, a task may wait for
		// seconds where no poller looks just now, while pollers wait at the other partitions.
		"--dynamic-config-value", "matching.numTaskqueueReadPartitions=1",
		"--dynamic-config-value", "matching.numTaskqueueWritePartitions=1",
		// As servers do. The development server's own default reads the search attributes from its database
		// many times for each workflow, so that new ones are known at once and not a moment later.
		"--dynamic-config-value", "system.forceSearchAttributesCacheRefreshOnRead=false",
		// The server writes one thing at a time to its file, and each of its tasks waits at most 5 s for that. With
		// the default of 512 tasks at once, thousands of timers that are due together time one another out, and
		// none of them gets done.
		"--dynamic-config-value", "history.timerProcessorSchedulerWorkerCount=32",
		"--dynamic-config-value", "history.transferProcessorSchedulerWorkerCount=32",
		"--dynamic-config-value", "history.visibilityProcessorSchedulerWorkerCount=32",
	}
	if opts.Headless {
		args = append(args, "--headless")
	} else {
		args = append(args, "--ui-port", strconv.Itoa(opts.UIPort))
	}
	if !opts.InMemory {
		// The defaults sync far more often than a history needs that survives the end of the process.
		args = append(args, "--db-filename", filepath.Join(opts.Dir, temporalDatabase),
			"--sqlite-pragma", "journal_mode=WAL", "--sqlite-pragma", "synchronous=NORMAL")
	}
	for _, name := range slices.Sorted(maps.Keys(opts.SearchAttributes)) {
		args = append(args, "--search-attribute", name+"="+opts.SearchAttributes[name])
	}
	return args
}

// awaitTemporal waits until the frontend serves the namespace default.
func awaitTemporal(ctx context.Context, child *process, port int) error {
	for {
		err := checkTemporal(ctx, port)
		if err == nil {
			return nil
		}
		select {
		case <-child.Done():
			return child.Err()
		case <-ctx.Done():
			return fmt.Errorf("Temporal does not answer: %w%s", err, child.lastWords())
		case <-time.After(pollInterval):
		}
	}
}

func checkTemporal(ctx context.Context, port int) error {
	if !answersTCP(ctx, port) { // gRPC would back off for longer than the server needs
		return errors.New("nothing listens on " + hostPort(port))
	}
	c, err := client.DialContext(ctx, client.Options{
		HostPort: hostPort(port),
		Logger:   log.NewStructuredLogger(slog.New(slog.DiscardHandler)),
	})
	if err != nil {
		return err
	}
	defer c.Close()
	_, err = c.WorkflowService().DescribeNamespace(ctx, &workflowservice.DescribeNamespaceRequest{Namespace: client.DefaultNamespace})
	return err
}

// findTemporal looks on PATH, then beside the running program, then in the bin directory of the module,
// where `make build` puts it and where tests find it.
func findTemporal() (string, error) {
	if path, err := exec.LookPath("temporal"); err == nil {
		return path, nil
	}
	var places []string
	if self, err := os.Executable(); err == nil {
		places = append(places, filepath.Dir(self))
	}
	if root := moduleRoot(); root != "" {
		places = append(places, filepath.Join(root, "bin"))
	}
	for _, place := range places {
		if path, err := exec.LookPath(filepath.Join(place, "temporal")); err == nil {
			return path, nil
		}
	}
	return "", errors.New("temporal was not found; run `make build`, or install the Temporal CLI (https://docs.temporal.io/cli), or name a running server with --temporal-address")
}

// moduleRoot is the nearest directory, from the current one up, that holds the command's source; "" if
// none does.
func moduleRoot() string {
	dir, err := os.Getwd()
	if err != nil {
		return ""
	}
	for ; ; dir = filepath.Dir(dir) {
		if _, err := os.Stat(filepath.Join(dir, "cmd", "earmark")); err == nil {
			return dir
		}
		if dir == filepath.Dir(dir) {
			return ""
		}
	}
}
