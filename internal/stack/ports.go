//go:build unix

package stack

import (
	"math/rand/v2"
	"net"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// Ports of the test's own come from below the range that the kernel gives to
// outgoing connections: while a service is down, nobody else is handed its port.
const (
	firstPort = 10_000
	lastPort  = 29_999
	portTries = 20
)

// onFreePort calls start with a free port, and with others while it answers that
// somebody was faster.
func onFreePort(start func(port int) error) error {
	var err error
	for range portTries {
		port := firstPort + rand.IntN(lastPort-firstPort+1)
		if !isFree(port) {
			continue
		}
		if err = start(port); err == nil || !strings.Contains(err.Error(), "in use") {
			return err
		}
	}
	return err
}

func isFree(port int) bool {
	listener, err := net.Listen("tcp", loopback(port))
	return err == nil && listener.Close() == nil
}

func loopback(port int) string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(port)) }

// FreePorts picks ports that nobody listens on.
func FreePorts(tb testing.TB, n int) []int {
	tb.Helper()
	var ports []int
	for len(ports) < n {
		require.NoError(tb, onFreePort(func(port int) error {
			if !slices.Contains(ports, port) {
				ports = append(ports, port)
			}
			return nil
		}))
	}
	return ports
}
