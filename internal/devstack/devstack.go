//go:build unix

// Package devstack runs a real Postgres and a real Temporal development server as child processes, for
// `earmark dev` and for tests. Both listen on 127.0.0.1 alone, keep their data in a directory of the
// caller's choice, and stop with the process that started them: in order through Stop and, on Linux,
// also when that process is killed.
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
	// loopback is the only address that either service listens on: Temporal asks nobody for a password.
	loopback = "127.0.0.1"
	// portGrace is how long a taken port is waited for. After a kill -9 the old children need a moment
	// to let go of theirs, and whoever restarts at once should not be told that the port is taken.
	portGrace = 2 * time.Second
	// pollInterval separates two looks at something that another process is about to do.
	pollInterval = 25 * time.Millisecond
	// Data, logs and the password are for their owner alone.
	privateDirMode  = 0o700
	privateFileMode = 0o600
)

// passableDirMode is for a directory that Postgres' is in. As root, Postgres runs as another user, who has to
// pass through; nobody else can list it.
func passableDirMode() os.FileMode {
	if os.Geteuid() == 0 {
		return privateDirMode | 0o011
	}
	return privateDirMode
}

// DefaultDataDir is where `earmark dev` keeps its data by default: a per-user data
// directory or, for root, a system one, because Postgres cannot run as root and root's home is closed to
// everybody else.
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

// claimPort answers the port to use: the one that was asked for, if nobody listens on it, or a free one
// for 0. The error names the service and the flag that chooses another port.
func claimPort(ctx context.Context, port int, service, flag string) (int, error) {
	if port == 0 {
		return freePort()
	}
	for deadline := time.Now().Add(portGrace); ; time.Sleep(pollInterval) {
		listener, err := net.Listen("tcp", hostPort(port))
		if err == nil {
			_ = listener.Close()
			// Some systems let a listener on 127.0.0.1 stand beside another's on all addresses.
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

// answersTCP reports whether anybody accepts connections on the port.
func answersTCP(ctx context.Context, port int) bool {
	dialer := net.Dialer{Timeout: time.Second}
	conn, err := dialer.DialContext(ctx, "tcp", hostPort(port))
	if err != nil {
		return false
	}
	_ = conn.Close()
	return true
}

// freePort picks a free port and leaves it in TIME_WAIT: a server may still bind it, but the kernel hands
// it to nobody else in between, so that services started side by side do not meet on one port.
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

// logTo writes one line for people, if anybody wants to read it.
func logTo(w io.Writer, format string, args ...any) {
	if w != nil {
		_, _ = fmt.Fprintf(w, format+"\n", args...)
	}
}
