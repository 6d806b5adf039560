package main

import (
	"context"
	"io"
	"log/slog"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.temporal.io/sdk/client"
)

// A connection to a server that hangs is given up for a new one, long before the SDK's 45 s.
func TestConnectionToAFrozenTemporalIsGivenUp(t *testing.T) {
	t.Parallel()
	way := newFreezer(t, stack.TemporalAddress())
	s := settings{temporalAddress: way.address()}
	temporal, _, err := s.temporal(slog.New(slog.DiscardHandler))
	require.NoError(t, err)
	t.Cleanup(temporal.Close)
	healthy := func(limit time.Duration) error {
		ctx, cancel := context.WithTimeout(t.Context(), limit)
		defer cancel()
		_, err := temporal.CheckHealth(ctx, &client.CheckHealthRequest{})
		return err
	}
	require.NoError(t, healthy(30*time.Second))
	way.freeze()
	frozen := time.Now()
	require.Error(t, healthy(time.Second))
	require.Eventually(t, func() bool { return healthy(time.Second) == nil }, time.Minute, 100*time.Millisecond)
	require.Less(t, time.Since(frozen), 30*time.Second)
}

// freezer lets TCP connections through until they are frozen; later ones go through.
type freezer struct {
	listener net.Listener

	mu   sync.Mutex
	stop chan struct{} // of the connections from now on: closed when they are frozen
}

func newFreezer(t *testing.T, upstream string) *freezer {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	f := &freezer{listener: listener, stop: make(chan struct{})}
	t.Cleanup(func() { _ = listener.Close() })
	go func() {
		for {
			from, err := listener.Accept()
			if err != nil {
				return
			}
			to, err := net.Dial("tcp", upstream)
			if err != nil {
				_ = from.Close()
				continue
			}
			t.Cleanup(func() {
				_ = from.Close()
				_ = to.Close()
			})
			f.mu.Lock()
			stop := f.stop
			f.mu.Unlock()
			go forward(to, from, stop)
			go forward(from, to, stop)
		}
	}()
	return f
}

func (f *freezer) address() string { return f.listener.Addr().String() }

func (f *freezer) freeze() {
	f.mu.Lock()
	defer f.mu.Unlock()
	close(f.stop)
	f.stop = make(chan struct{})
}

// forward copies until stop is closed. Then it swallows what comes, and leaves both connections open.
func forward(to io.Writer, from io.Reader, stop <-chan struct{}) {
	buffer := make([]byte, 32<<10)
	for {
		n, err := from.Read(buffer)
		if err != nil {
			return
		}
		select {
		case <-stop:
		default:
			if _, err := to.Write(buffer[:n]); err != nil {
				return
			}
		}
	}
}
