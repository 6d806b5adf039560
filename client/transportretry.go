package client

import (
	"context"
	"crypto/sha256"
	"io"
	"net/http"
	"strconv"
	"sync"
	"time"
)

// identity names a call with its caller, its scopes and its bytes, which are the same in
// each attempt.
type identity [sha256.Size]byte

func identityOf(r *http.Request, scopes []string, body []byte) identity {
	hash := sha256.New()
	part := func(text string) { _, _ = io.WriteString(hash, strconv.Quote(text)) } // a hash takes everything
	part(r.URL.String())
	if key, ok := r.Context().Value(apiKeyOf{}).(string); ok {
		part(key)
	}
	for _, name := range []string{"Authorization", "X-Api-Key", "X-Goog-Api-Key"} {
		part(r.Header.Get(name)) // mutation: own-attempts
	}
	for _, scope := range scopes {
		part(scope)
	}
	_, _ = hash.Write(body)
	return identity(hash.Sum(nil))
}

// isRetry reports whether an SDK says that this is not its first attempt of a call, as those
// of OpenAI and Anthropic do in each of their languages.
func isRetry(r *http.Request) bool {
	count, err := strconv.Atoi(r.Header.Get(retryCountHeader))
	return err == nil && count > 0
}

// leftRuns are runs whose outcome nobody knows, left to their expiry policy. The next
// attempt of the same call takes its run over, so that the call holds once.
type leftRuns struct {
	mu   sync.Mutex
	runs map[identity][]leftRun
}

// leftRun is a run that was left at a time. input is the estimate of what its attempts may
// have cost.
type leftRun struct {
	run      *run
	input    int64
	attempts int64
	at       time.Time
}

func (l *leftRuns) put(id identity, left leftRun) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.runs == nil {
		l.runs = map[identity][]leftRun{}
	}
	left.at = time.Now()
	l.runs[id] = append(l.runs[id], left)
	for other, runs := range l.runs { // few: each is a failure of the last minutes
		for len(runs) > 0 && time.Since(runs[0].at) > runs[0].run.ttl {
			runs = runs[1:]
		}
		if l.runs[other] = runs; len(runs) == 0 {
			delete(l.runs, other)
		}
	}
}

// take returns the run that was left last; nil if there is none whose lease may run.
func (l *leftRuns) take(id identity) *leftRun {
	l.mu.Lock()
	defer l.mu.Unlock()
	runs := l.runs[id]
	if len(runs) == 0 {
		return nil
	}
	last := runs[len(runs)-1]
	if l.runs[id] = runs[:len(runs)-1]; len(runs) == 1 {
		delete(l.runs, id)
	}
	if time.Since(last.at) > last.run.ttl {
		return nil
	}
	return &last
}

// resume keeps the lease again; the first extension is due now.
func (r *run) resume(ctx context.Context) *run {
	since := time.Now().Add(-extendAfter(r.ttl))
	return &run{client: r.client, reservation: r.reservation, ttl: r.ttl, stop: r.client.keep(ctx, lease{id: r.reservation.ID, ttl: r.ttl, since: since})}
}
