package gateway

import (
	"context"
	"crypto/sha256"
	"sync"
	"time"

	"github.com/earmark-dev/earmark"
	"github.com/earmark-dev/earmark/client"
)

// callers knows whose keys they are. It keeps no key, only its hash.
type callers struct {
	earmark  *client.Client
	failOpen bool

	mu    sync.Mutex
	known map[[sha256.Size]byte]known
}

type known struct {
	caller *earmark.Caller
	at     time.Time
}

// lookUp returns the holder of a key. While Earmark is away only a key that it knew within
// the last hour is good, and only with failOpen. ctx has the key for the client.
func (c *callers) lookUp(ctx context.Context, key string) (*earmark.Caller, error) {
	hash := sha256.Sum256([]byte(key))
	c.mu.Lock()
	before, found := c.known[hash]
	c.mu.Unlock()
	if found && time.Since(before.at) < freshFor {
		return before.caller, nil
	}
	caller, err := c.earmark.Whoami(ctx)
	code := earmark.ErrorCode(err)
	switch {
	case err == nil:
		c.keep(hash, caller)
		return caller, nil
	case c.failOpen && found && time.Since(before.at) < failOpenFor && code == earmark.CodeUnavailable && ctx.Err() == nil:
		return before.caller, nil
	case code == earmark.CodeUnauthenticated || code == earmark.CodeForbidden:
		c.forget(hash)
	default:
	}
	return nil, err
}

func (c *callers) keep(hash [sha256.Size]byte, caller *earmark.Caller) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.known == nil || len(c.known) >= maxCallers { // start again: it costs a call for each key
		c.known = map[[sha256.Size]byte]known{}
	}
	c.known[hash] = known{caller, time.Now()}
}

func (c *callers) forget(hash [sha256.Size]byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.known, hash)
}
