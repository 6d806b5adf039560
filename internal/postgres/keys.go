package postgres

import (
	"context"
	_ "embed"
	"encoding/json"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/earmark-dev/earmark"
	"github.com/earmark-dev/earmark/internal/keys"
)

const (
	createKeySQL = "SELECT earmark.create_key(p_id => @id, p_tenant => @tenant, p_name => @name, p_role => @role, p_scopes => @scopes, p_hash => @hash, " +
		"p_expires_at => @expires_at, p_rate => @rate, p_actor => @actor, p_reason => @reason)"
	rotateKeySQL    = "SELECT earmark.rotate_key(p_tenant => @tenant, p_id => @id, p_new_id => @new_id, p_hash => @hash, p_overlap_ms => @overlap_ms, p_actor => @actor, p_reason => @reason)"
	revokeKeySQL    = "SELECT earmark.revoke_key(p_tenant => @tenant, p_id => @id, p_actor => @actor, p_reason => @reason)"
	markKeysUsedSQL = "SELECT earmark.mark_keys_used(p_ids => @ids)"
)

var (
	//go:embed sql/credential.sql
	credentialSQL string
	//go:embed sql/keys.sql
	keysSQL string
)

// Credential returns the key with this id, of any tenant, even if it is expired or revoked.
// The error is CodeNotFound if there is none.
func (l *Ledger) Credential(ctx context.Context, keyID string) (*earmark.Credential, error) {
	if !earmark.IsKeyID(keyID) {
		return nil, noSuchKey()
	}
	return l.credential(ctx, credentialSQL, keyID)
}

// credential reads the key that sql finds by the argument; the error is CodeNotFound if it finds none.
func (l *Ledger) credential(ctx context.Context, sql string, by any) (*earmark.Credential, error) {
	var c earmark.Credential
	var document, hash []byte
	err := l.pool.QueryRow(ctx, sql, by).Scan(&document, &hash, &c.TenantDisabled)
	if isNoRows(err) {
		return nil, noSuchKey()
	}
	if err != nil {
		return nil, fault(err)
	}
	copy(c.Hash[:], hash) // the table holds it to this length
	return &c, json.Unmarshal(document, &c.Key)
}

// CreateKey creates a key. It checks the request and the reason. The error is CodeNotFound
// if there is no such tenant.
func (l *Ledger) CreateKey(ctx context.Context, tenant string, request earmark.KeyRequest, by earmark.Actor, reason string) (*earmark.IssuedKey, error) {
	if err := request.Validate(time.Now()); err != nil {
		return nil, err
	}
	if err := earmark.ValidateReason(reason); err != nil {
		return nil, err
	}
	token := keys.New()
	issued := &earmark.IssuedKey{Secret: token.Text()}
	err := l.read(ctx, &issued.Key, createKeySQL, namedArgs{
		"id": token.ID, "tenant": tenant, "name": request.Name, "role": string(request.Role), "scopes": orNone(request.Scopes),
		"hash": hashOf(token), "expires_at": request.ExpiresAt, "rate": request.Rate.String(), "actor": by.String(), "reason": reason})
	if err != nil {
		return nil, err
	}
	if issued.ID == "" {
		return nil, noSuchTenant(tenant)
	}
	return issued, nil
}

// Keys lists a tenant's keys, newest first, including expired and revoked ones.
func (l *Ledger) Keys(ctx context.Context, tenant string, f earmark.KeyFilter) (earmark.Page[earmark.Key], error) {
	var none earmark.Page[earmark.Key]
	list := listOf("keys", tenant)
	createdAt, lastID, err := list.parse(f.Cursor)
	if err != nil {
		return none, err
	}
	limit := pageSize(f.Limit)
	rows, err := l.lists.Query(ctx, keysSQL, tenant, createdAt, lastID, limit+1)
	if err != nil {
		return none, fault(err)
	}
	found, err := pgx.CollectRows(rows, documentOf[earmark.Key])
	if err != nil {
		return none, fault(err)
	}
	return page(found, limit, func(k earmark.Key) string { return list.cursor(k.CreatedAt, k.ID) }), nil
}

// RotateKey creates a key with the name, role, scopes, rate and lifetime of another key, which
// works for the overlap and then expires. It checks the overlap and the reason. The error
// is CodeNotFound if there is no such key, and CodeInvalidRequest if it no longer works or
// was rotated before.
func (l *Ledger) RotateKey(ctx context.Context, tenant, id string, overlap time.Duration, by earmark.Actor, reason string) (*earmark.IssuedKey, error) {
	if err := earmark.ValidateOverlap(overlap); err != nil {
		return nil, err
	}
	if err := earmark.ValidateReason(reason); err != nil {
		return nil, err
	}
	if !earmark.IsKeyID(id) {
		return nil, noSuchKey()
	}
	token := keys.New()
	var answer struct {
		Outcome earmark.Outcome `json:"outcome"`
		Key     earmark.Key     `json:"key"`
	}
	err := l.read(ctx, &answer, rotateKeySQL, namedArgs{
		"tenant": tenant, "id": id, "new_id": token.ID, "hash": hashOf(token), "overlap_ms": overlap.Milliseconds(), "actor": by.String(), "reason": reason})
	switch {
	case err != nil:
		return nil, err
	case answer.Outcome == earmark.OutcomeUnknown:
		return nil, noSuchKey()
	case answer.Outcome == earmark.OutcomeConflict:
		return nil, notRotated(answer.Key)
	}
	return &earmark.IssuedKey{Key: answer.Key, Secret: token.Text()}, nil
}

// RevokeKey revokes a key for good; revoking it again changes nothing. The error is
// CodeNotFound if there is no such key.
func (l *Ledger) RevokeKey(ctx context.Context, tenant, id string, by earmark.Actor, reason string) (*earmark.Key, error) {
	if err := earmark.ValidateReason(reason); err != nil {
		return nil, err
	}
	if !earmark.IsKeyID(id) {
		return nil, noSuchKey()
	}
	var k earmark.Key
	err := l.read(ctx, &k, revokeKeySQL, namedArgs{"tenant": tenant, "id": id, "actor": by.String(), "reason": reason})
	if err != nil {
		return nil, err
	}
	if k.ID == "" {
		return nil, noSuchKey()
	}
	return &k, nil
}

// MarkKeysUsed records that keys were used in this hour. It ignores ids without a key.
func (l *Ledger) MarkKeysUsed(ctx context.Context, ids []string) error {
	_, err := l.pool.Exec(ctx, markKeysUsedSQL, namedArgs{"ids": orNone(ids)})
	return fault(err)
}

func hashOf(token keys.Token) []byte {
	hash := token.Hash()
	return hash[:]
}

func noSuchKey() error { return earmark.Errorf(earmark.CodeNotFound, "there is no such key") }

func notRotated(k earmark.Key) error {
	const again = "and cannot be rotated; create a key instead"
	switch {
	case k.RevokedAt != nil:
		return earmark.Errorf(earmark.CodeInvalidRequest, "the key was revoked at %s %s", k.RevokedAt.UTC().Format(time.RFC3339), again)
	case k.ReplacedBy != "":
		return earmark.Errorf(earmark.CodeInvalidRequest, "the key was rotated before; rotate the key that replaced it, %s", k.ReplacedBy)
	}
	return earmark.Errorf(earmark.CodeInvalidRequest, "the key has expired %s", again)
}

// documentOf reads a row of one JSON document.
func documentOf[T any](row pgx.CollectableRow) (T, error) {
	var document []byte
	var value T
	if err := row.Scan(&document); err != nil {
		return value, err
	}
	return value, json.Unmarshal(document, &value)
}
