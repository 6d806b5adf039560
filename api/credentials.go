package api

import (
	"context"
	"crypto/sha256"
	"log/slog"
	"sync"
	"time"

	"golang.org/x/sync/singleflight"

	"github.com/earmark-dev/earmark"
	"github.com/earmark-dev/earmark/internal/fairqueue"
	"github.com/earmark-dev/earmark/internal/keys"
)

const (
	// credentialFresh is how long a credential is used before Postgres is asked again.
	// Together with credentialTimeout it stays below the 5 seconds within which a
	// revocation takes effect.
	credentialFresh = 3 * time.Second
	// credentialStale is how long a credential is used while Postgres does not answer, so
	// that a settlement reaches Temporal.
	credentialStale = 60 * time.Second
	// credentialTimeout bounds one read of Postgres.
	credentialTimeout = time.Second
	// credentialPause is the pause between two reads for the same key after a failed one.
	credentialPause = time.Second
	// maxCredentials bounds the cached keys, and maxUnknown the cached ids without a key.
	maxCredentials = 10_000
	maxUnknown     = 10_000
	// maxLookups bounds the reads at once for ids that are not cached: calls with invented ids wait in a queue.
	maxLookups = 2
	// markTimeout bounds one write of the used keys.
	markTimeout = 5 * time.Second
)

// credentialSource is the part of the ledger that credentials use.
type credentialSource interface {
	Credential(ctx context.Context, keyID string) (*earmark.Credential, error)
	SignIn(ctx context.Context, hash [sha256.Size]byte) (*earmark.Credential, error)
	MarkKeysUsed(ctx context.Context, ids []string) error
}

// credentials checks keys and sign-ins. It caches the answer of Postgres about each for a few seconds.
type credentials struct {
	source  credentialSource
	log     *slog.Logger
	now     func() time.Time
	lookups *queue // of ids that are not cached
	flight  singleflight.Group

	mu      sync.Mutex
	known   map[string]remembered // by the id of a key or signInToken.cacheID
	unknown map[string]remembered // ids without a credential
	used    map[string]time.Time  // the hour that was or will be recorded for a key
	pending []string              // keys whose use is to be recorded
	marking bool                  // notePending runs
}

// readCredential asks Postgres for a credential; the error is CodeNotFound if there is none.
type readCredential func(ctx context.Context) (*earmark.Credential, error)

// remembered is a cached answer of Postgres about an id.
type remembered struct {
	credential *earmark.Credential // nil: there is none
	at         time.Time           // when Postgres was asked
	failed     time.Time           // of the last read, if it failed
}

func newCredentials(source credentialSource, log *slog.Logger) *credentials {
	return &credentials{
		source: source, log: log, now: time.Now, lookups: newQueue("unknown keys", maxLookups),
		known: map[string]remembered{}, unknown: map[string]remembered{}, used: map[string]time.Time{},
	}
}

// check returns the key of the token. Only a caller with the right secret learns why a key
// is refused; every other caller learns that the key is not known.
func (k *credentials) check(ctx context.Context, token keys.Token) (*earmark.Key, error) {
	credential, err := k.lookup(ctx, token.ID, func(ctx context.Context) (*earmark.Credential, error) { return k.source.Credential(ctx, token.ID) })
	if err != nil {
		return nil, err
	}
	var stored [32]byte // compared in any case, so that the time does not reveal which ids exist
	if credential != nil {
		stored = credential.Hash
	}
	if right := keys.Equal(stored, token.Hash()); !right || credential == nil { // mutation: secret
		return nil, unauthenticated("the key is not known")
	}
	return k.works(ctx, credential)
}

// checkSignIn returns the key with which the browser with this cookie has signed in.
func (k *credentials) checkSignIn(ctx context.Context, cookie signInToken) (*earmark.Key, error) {
	credential, err := k.lookupSignIn(ctx, cookie)
	switch {
	case err != nil:
		return nil, err
	case credential == nil:
		return nil, signInIsOver()
	}
	return k.works(ctx, credential)
}

// lookupSignIn returns the credential with which the browser has signed in, even if it does not work any more; nil if there
// is no such sign-in.
func (k *credentials) lookupSignIn(ctx context.Context, cookie signInToken) (*earmark.Credential, error) {
	return k.lookup(ctx, cookie.cacheID(), func(ctx context.Context) (*earmark.Credential, error) { return k.source.SignIn(ctx, cookie.hash()) })
}

// forgetSignIn makes the next call of the browser ask Postgres.
func (k *credentials) forgetSignIn(cookie signInToken) {
	k.mu.Lock()
	defer k.mu.Unlock()
	delete(k.known, cookie.cacheID())
}

// works is the key, unless it does not work any more.
func (k *credentials) works(ctx context.Context, credential *earmark.Credential) (*earmark.Key, error) {
	key, now := &credential.Key, k.now()
	switch {
	case key.RevokedAt != nil:
		return nil, unauthenticated("the key is revoked")
	case key.ExpiresAt != nil && !now.Before(*key.ExpiresAt):
		return nil, unauthenticated("the key has expired at %s", key.ExpiresAt.UTC().Format(time.RFC3339))
	case credential.TenantDisabled:
		return nil, unauthenticated("the tenant of the key is disabled")
	}
	k.markUsed(ctx, key, now)
	return key, nil
}

// lookup returns the credential that is cached under the id, or what ask returns; nil if there is none.
func (k *credentials) lookup(ctx context.Context, id string, ask readCredential) (*earmark.Credential, error) {
	if kept, fresh := k.fresh(id); fresh {
		return kept.credential, nil
	}
	results := k.flight.DoChan(id, func() (any, error) {
		kept, fresh := k.fresh(id)
		if fresh { // another call has just ended
			return kept.credential, nil
		}
		return k.refresh(context.WithoutCancel(ctx), id, kept, ask)
	})
	select {
	case <-ctx.Done():
		return nil, ctx.Err()
	case result := <-results:
		credential, _ := result.Val.(*earmark.Credential)
		return credential, result.Err
	}
}

// fresh returns the cached answer, and whether it serves without asking Postgres again.
func (k *credentials) fresh(id string) (kept remembered, fresh bool) {
	kept, found := k.recall(id)
	now := k.now()
	fresh = found && now.Sub(kept.at) < credentialFresh || // mutation: revocation
		kept.usable(now) && now.Sub(kept.failed) < credentialPause
	return kept, fresh
}

// usable reports whether a cached key may be used although Postgres does not answer.
func (r remembered) usable(now time.Time) bool {
	return r.credential != nil && now.Sub(r.at) < credentialStale
}

// refresh reads Postgres, and falls back to the cached answer.
func (k *credentials) refresh(ctx context.Context, id string, kept remembered, read readCredential) (*earmark.Credential, error) {
	ctx, cancel := context.WithTimeout(ctx, credentialTimeout)
	defer cancel()
	asked := k.now()
	ask := func() (*earmark.Credential, error) { return read(ctx) }
	var credential *earmark.Credential
	var err error
	if kept.credential != nil {
		credential, err = ask()
	} else {
		credential, err = inQueue(ctx, k.lookups, fairqueue.Caller{}, ask)
	}
	switch {
	case err == nil, earmark.ErrorCode(err) == earmark.CodeNotFound:
		k.remember(id, remembered{credential: credential, at: asked})
		return credential, nil
	case kept.usable(k.now()):
		kept.failed = k.now()
		k.remember(id, kept)
		return kept.credential, nil
	}
	away := earmark.Errorf(earmark.CodeUnavailable, "the key could not be checked, for Postgres did not answer: %w", err)
	away.RetryAfter, away.Queue = retryUnavailable, asError(err).Queue
	return nil, away
}

func (k *credentials) recall(id string) (kept remembered, found bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if kept, found = k.known[id]; !found {
		kept, found = k.unknown[id]
	}
	return kept, found
}

// remember caches known keys and ids without a key separately, so that a flood of invented
// ids does not displace a key.
func (k *credentials) remember(id string, what remembered) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if what.credential == nil {
		delete(k.known, id)
		keep(k.unknown, id, what, maxUnknown)
		return
	}
	delete(k.unknown, id)
	keep(k.known, id, what, maxCredentials)
}

// keep adds to a map of bounded size, which it empties if it is full.
func keep(in map[string]remembered, id string, what remembered, limit int) {
	if _, found := in[id]; !found && len(in) >= limit {
		clear(in)
	}
	in[id] = what
}

// markUsed records in the background that the key was used, once an hour.
func (k *credentials) markUsed(ctx context.Context, key *earmark.Key, now time.Time) {
	hour := now.UTC().Truncate(time.Hour)
	if key.LastUsedAt != nil && !key.LastUsedAt.Before(hour) || !k.claim(key.ID, hour) {
		return
	}
	go k.notePending(context.WithoutCancel(ctx))
}

// claim records that the key was used in this hour, and reports whether its caller has to
// start notePending.
func (k *credentials) claim(id string, hour time.Time) (start bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.used[id].Equal(hour) {
		return false
	}
	if len(k.used) >= maxCredentials {
		clear(k.used)
	}
	k.used[id] = hour
	k.pending = append(k.pending, id)
	start, k.marking = !k.marking, true
	return start
}

// notePending writes the used keys until nothing more is pending.
func (k *credentials) notePending(ctx context.Context) {
	for {
		ids := k.takePending()
		if len(ids) == 0 {
			return
		}
		if err := k.note(ctx, ids); err != nil {
			k.log.WarnContext(ctx, "It could not be noted which keys were used; their next calls try again.", "error", err)
			k.forget(ids)
		}
	}
}

func (k *credentials) takePending() (ids []string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	ids, k.pending = k.pending, nil
	k.marking = len(ids) > 0
	return ids
}

func (k *credentials) note(ctx context.Context, ids []string) error {
	ctx, cancel := context.WithTimeout(ctx, markTimeout)
	defer cancel()
	return k.source.MarkKeysUsed(ctx, ids)
}

func (k *credentials) forget(ids []string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, id := range ids {
		delete(k.used, id)
	}
}
