package postgres

import (
	"context"
	"crypto/sha256"
	_ "embed"
	"time"

	"github.com/earmark-dev/earmark"
)

const (
	createSignInSQL = "SELECT earmark.create_sign_in(p_hash => @hash, p_key_id => @key_id, p_lasts_ms => @lasts_ms)"
	endSignInSQL    = "SELECT earmark.end_sign_in(p_hash => @hash)"
)

//go:embed sql/sign_in.sql
var signInSQL string

// CreateSignIn records that a browser, whose cookie has this hash, is signed in with a key for as long as lasts. It does not
// check whether the key works. The error is CodeNotFound if there is no such key.
func (l *Ledger) CreateSignIn(ctx context.Context, hash [sha256.Size]byte, keyID string, lasts time.Duration) error {
	var created bool
	err := l.pool.QueryRow(ctx, createSignInSQL, namedArgs{"hash": hash[:], "key_id": keyID, "lasts_ms": lasts.Milliseconds()}).Scan(&created)
	switch {
	case err != nil:
		return fault(err)
	case !created:
		return noSuchKey()
	}
	return nil
}

// SignIn returns the key with which the browser is signed in whose cookie has this hash, of any tenant, even if the key is
// expired or revoked. The error is CodeNotFound if there is no such sign-in or its time is over.
func (l *Ledger) SignIn(ctx context.Context, hash [sha256.Size]byte) (*earmark.Credential, error) {
	return l.credential(ctx, signInSQL, hash[:])
}

// EndSignIn signs the browser out whose cookie has this hash. It ignores a hash without a sign-in.
func (l *Ledger) EndSignIn(ctx context.Context, hash [sha256.Size]byte) error {
	_, err := l.pool.Exec(ctx, endSignInSQL, namedArgs{"hash": hash[:]})
	return fault(err)
}
