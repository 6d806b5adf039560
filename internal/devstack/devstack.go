//go:build unix

// Package devstack runs a real Postgres and a real Temporal development server as child
// processes, for `earmark dev` and for tests. Both listen only on 127.0.0.1, keep their
// data in a directory of the caller's choice, and stop with the process that started them:
// in order through Stop and, on Linux, even if that process is killed.
package devstack

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"time"
)

const (
	// loopback is the only address that either service listens on, because Temporal asks
	// for no password.
	loopback = "127.0.0.1"
	// portGrace is how long a start waits for a taken port. After a kill -9 the old
	// children need a moment to free theirs, and an immediate restart must not fail for
	// that.
	portGrace = 2 * time.Second
	// pollInterval is the pause between two checks of another process.
	pollInterval = 25 * time.Millisecond
	// Only their owner can read data, logs and the password.
	privateDirMode  = 0o700
	privateFileMode = 0o600
)

// passableDirMode is the mode of a directory that contains Postgres' data. As root,
// Postgres runs as another user, which must be able to enter; no other user can list it.
func passableDirMode() os.FileMode {
	if os.Geteuid() == 0 {
		return privateDirMode | 0o011
	}
	return privateDirMode
}

// DefaultDataDir returns where `earmark dev` keeps its data by default: a per-user data
// directory or, for root, a system directory, because Postgres cannot run as root and only
// root can enter root's home.
func DefaultDataDir() (string, error) {
	if os.Geteuid() == 0 {
		return "/var/lib/earmark", nil
	}
	if dir := os.Getenv("XDG_DATA_HOME"); filepath.IsAbs(dir) {
		return filepath.Join(dir, "earmark"), nil
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return "", fmt.Errorf("there is no home directory to keep data in; name one with --data-dir: %w", err)
	}
	if runtime.GOOS == "darwin" {
		return filepath.Join(home, "Library", "Application Support", "earmark"), nil
	}
	return filepath.Join(home, ".local", "share", "earmark"), nil
}

// claimPort returns the port to use: the requested one if it is free, or a free one for 0.
// The error names the service and the flag that chooses another port.
func claimPort(ctx context.Context, port int, service, flag string) (int, error) {
	if port == 0 {
		return freePort()
	}
	for deadline := time.Now().Add(portGrace); ; time.Sleep(pollInterval) {
		listener, err := net.Listen("tcp", hostPort(port))
		if err == nil {
			_ = listener.Close()
			// Some systems allow a listener on 127.0.0.1 next to another one on all
			// addresses.
			if !answersTCP(ctx, port) {
				return port, nil
			}
		}
		if err != nil && errors.Is(err, fs.ErrPermission) {
			return 0, fmt.Errorf("port %d, wanted for %s, may not be used by this user; choose another with %s", port, service, flag)
		}
		if time.Now().After(deadline) {
			return 0, fmt.Errorf("port %d, wanted for %s, is already in use; choose another with %s", port, service, flag)
		}
	}
}

// answersTCP reports whether a process accepts connections on the port.
func answersTCP(ctx context.Context, port int) bool {
	dialer := net.Dialer{Timeout: time.Second}
	conn, err := dialer.DialContext(ctx, "tcp", hostPort(port))
	if err != nil {
		return false
	}
	_ = conn.Close()
	return true
}

// freePort returns a free port and leaves it in TIME_WAIT: a server can still bind it, but
// the kernel gives it to no other process meanwhile, so that services that start at the
// same time do not get the same port.
func freePort() (int, error) {
	listener, err := net.Listen("tcp", hostPort(0))
	if err != nil {
		return 0, fmt.Errorf("find a free port: %w", err)
	}
	defer func() { _ = listener.Close() }()

	port := listener.Addr().(*net.TCPAddr).Port
	conn, err := net.Dial("tcp", hostPort(port))
	if err != nil {
		return 0, fmt.Errorf("find a free port: %w", err)
	}
	defer func() { _ = conn.Close() }()
	accepted, err := listener.Accept()
	if err != nil {
		return 0, fmt.Errorf("find a free port: %w", err)
	}
	return port, accepted.Close()
}

func hostPort(port int) string { return net.JoinHostPort(loopback, strconv.Itoa(port)) }

// logTo writes one line for people, unless w is nil.
func logTo(w io.Writer, format string, args ...any) {
	if w != nil {
		_, _ = fmt.Fprintf(w, format+"\n", args...)
	}
}
