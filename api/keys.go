package api

import (
	"cmp"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/gin-gonic/gin"

	"github.com/earmark-dev/earmark"
)

// keyBody is earmark.KeyRequest with the operator and the reason.
type keyBody struct {
	Name      string       `json:"name"`
	Role      earmark.Role `json:"role"`
	Scopes    []string     `json:"scopes"`
	ExpiresAt string       `json:"expires_at"` // RFC 3339; empty for never
	Rate      string       `json:"rate"`       // as earmark.ParseRate reads it; empty for none
	Operator  string       `json:"operator"`
	Reason    string       `json:"reason"`
}

type rotateBody struct {
	OverlapSeconds int64  `json:"overlap_seconds"`
	Operator       string `json:"operator"`
	Reason         string `json:"reason"`
}

type revokeBody struct {
	Operator string `json:"operator"`
	Reason   string `json:"reason"`
}

// whoami answers with the party on whose behalf the call is made.
func (s *server) whoami(c *gin.Context) error {
	if err := noQuery(c); err != nil {
		return err
	}
	by := callerOf(c)
	shown := earmark.Caller{Tenant: by.tenant, Role: by.role(), Scopes: orEmpty(by.within())}
	if by.key != nil {
		shown.KeyID, shown.KeyName = by.key.ID, by.key.Name
	}
	return answer(c, http.StatusOK, shown)
}

func (s *server) listKeys(c *gin.Context) error {
	q, err := readQuery(c, "cursor", "limit")
	if err != nil {
		return err
	}
	var filter earmark.KeyFilter
	if filter.Cursor, filter.Limit, err = q.page(); err != nil {
		return err
	}
	if err := callerOf(c).needsNoBounds(); err != nil {
		return err
	}
	page, err := inQueue(c.Request.Context(), s.queues.lists, callerOf(c).turn(), func() (earmark.Page[earmark.Key], error) {
		return s.ledger.Keys(c.Request.Context(), callerOf(c).tenant, filter)
	})
	if err != nil {
		return err
	}
	shown := earmark.Page[earmark.Key]{Data: []earmark.Key{}, NextCursor: page.NextCursor}
	for _, key := range page.Data {
		shown.Data = append(shown.Data, showKey(key))
	}
	return answer(c, http.StatusOK, shown)
}

// createKey answers with the key's secret, which no other answer contains.
func (s *server) createKey(c *gin.Context) error {
	var body keyBody
	if err := cmp.Or(noQuery(c), decodeBody(c, &body)); err != nil {
		return err
	}
	request := earmark.KeyRequest{Name: body.Name, Role: body.Role, Scopes: body.Scopes}
	at, err := moment("expires_at", body.ExpiresAt)
	if err != nil {
		return err
	}
	request.ExpiresAt = at
	rate, err := earmark.ParseRate(body.Rate)
	if err != nil {
		return err
	}
	request.Rate = rate
	by, err := keyManager(c, body.Operator, body.Reason)
	if err != nil {
		return err
	}
	issued, err := inQueue(c.Request.Context(), s.queues.changes, callerOf(c).turn(), func() (*earmark.IssuedKey, error) {
		return s.ledger.CreateKey(c.Request.Context(), callerOf(c).tenant, request, by, body.Reason)
	})
	return answerIssued(c, issued, err)
}

func (s *server) rotateKey(c *gin.Context) error {
	var body rotateBody
	if err := cmp.Or(noQuery(c), decodeOptionalBody(c, &body)); err != nil {
		return err
	}
	overlap := time.Duration(body.OverlapSeconds) * time.Second
	if body.OverlapSeconds < 0 || body.OverlapSeconds > int64(earmark.MaxKeyOverlap/time.Second) {
		return earmark.Invalidf("overlap_seconds", "%d is out of range: 0 to %d are allowed", body.OverlapSeconds, int64(earmark.MaxKeyOverlap/time.Second))
	}
	by, err := keyManager(c, body.Operator, body.Reason)
	if err != nil {
		return err
	}
	issued, err := inQueue(c.Request.Context(), s.queues.changes, callerOf(c).turn(), func() (*earmark.IssuedKey, error) {
		return s.ledger.RotateKey(c.Request.Context(), callerOf(c).tenant, c.Param("id"), overlap, by, body.Reason)
	})
	return answerIssued(c, issued, err)
}

// revokeKey answers the same if it is repeated.
func (s *server) revokeKey(c *gin.Context) error {
	var body revokeBody
	if err := cmp.Or(noQuery(c), decodeOptionalBody(c, &body)); err != nil {
		return err
	}
	by, err := keyManager(c, body.Operator, body.Reason)
	if err != nil {
		return err
	}
	key, err := inQueue(c.Request.Context(), s.queues.changes, callerOf(c).turn(), func() (*earmark.Key, error) {
		return s.ledger.RevokeKey(c.Request.Context(), callerOf(c).tenant, c.Param("id"), by, body.Reason)
	})
	if err != nil {
		return err
	}
	return answer(c, http.StatusOK, showKey(*key))
}

// keyManager returns the actor that changes keys. It refuses a key that is bound to scopes,
// because a new key could reach further.
func keyManager(c *gin.Context, operator, reason string) (earmark.Actor, error) {
	by, actor := callerOf(c), callerOf(c).actor()
	if operator != "" {
		actor = by.operator(operator)
		if err := earmark.ValidateOperator(operator); err != nil {
			return actor, err
		}
	}
	return actor, cmp.Or(earmark.ValidateReason(reason), by.needsNoBounds())
}

func answerIssued(c *gin.Context, issued *earmark.IssuedKey, err error) error {
	if err != nil {
		return err
	}
	shown := *issued
	shown.Key = showKey(shown.Key)
	return answer(c, http.StatusCreated, shown)
}

func showKey(key earmark.Key) earmark.Key {
	key.Scopes = orEmpty(key.Scopes)
	return key
}

// listAudit lists changes of budgets, keys and the tenant.
func (s *server) listAudit(c *gin.Context) error {
	filter, err := auditFilter(c)
	if err != nil {
		return err
	}
	page, err := inQueue(c.Request.Context(), s.queues.lists, callerOf(c).turn(), func() (earmark.Page[earmark.AuditRecord], error) {
		return s.ledger.Audit(c.Request.Context(), callerOf(c).tenant, filter)
	})
	if err != nil {
		return err
	}
	page.Data = orEmpty(page.Data)
	return answer(c, http.StatusOK, page)
}

func auditFilter(c *gin.Context) (filter earmark.AuditFilter, err error) {
	q, err := readQuery(c, "subject", "action", "actor", "cursor", "limit")
	if err != nil {
		return filter, err
	}
	filter.Subject, filter.Action, filter.Actor = q.values.Get("subject"), q.values.Get("action"), q.values.Get("actor")
	if q.values.Has("action") && !slices.Contains(earmark.Actions, filter.Action) {
		return filter, earmark.Invalidf("action", "%q is not allowed; use one of %s", earmark.Clip(filter.Action), strings.Join(earmark.Actions, ", "))
	}
	for _, name := range []string{"subject", "actor"} {
		if text := q.values.Get(name); len(text) > maxAuditText || strings.ContainsFunc(text, func(char rune) bool { return char < ' ' || char > '~' }) {
			return filter, earmark.Invalidf(name, "is not one; give the id or the name as a record has it")
		}
	}
	if filter.Cursor, filter.Limit, err = q.page(); err != nil {
		return filter, err
	}
	return filter, callerOf(c).needsNoBounds()
}

// maxAuditText bounds the filters for a record's subject and actor, in bytes.
const maxAuditText = 128
