package api

import (
	"slices"
	"strings"

	"github.com/gin-gonic/gin"

	"github.com/earmark-dev/earmark"
)

// caller is the party on whose behalf a call is made. It is zero for a path that needs no
// key.
type caller struct {
	tenant string
	key    *earmark.Key // nil if the server works without keys
}

// anybody is the caller of a server without keys.
var anybody = caller{tenant: earmark.DefaultTenant}

const callerKey = "caller"

// identity is the result of authenticate.
type identity struct {
	caller caller
	err    error
}

func identityOf(c *gin.Context) identity {
	known, _ := c.Get(callerKey)
	found, _ := known.(identity)
	return found
}

func callerOf(c *gin.Context) caller { return identityOf(c).caller }

// role returns the caller's role.
func (w caller) role() earmark.Role {
	if w.key == nil {
		return earmark.RoleAdmin
	}
	return w.key.Role
}

// actor returns the caller as the journal names it.
func (w caller) actor() earmark.Actor {
	if w.key == nil {
		return earmark.ActorAPI
	}
	return earmark.ActorAPI.WithKey(w.key.ID)
}

// operator returns a person who acts with the caller's key, as the journal names them.
func (w caller) operator(name string) earmark.Actor {
	return earmark.OperatorActor(name).WithKey(w.actor().Key)
}

// within returns the scopes that the caller's key is bound to; none means every scope.
func (w caller) within() []string {
	if w.key == nil {
		return nil
	}
	return w.key.Scopes
}

// bound reports whether the caller's key is bound to scopes.
func (w caller) bound() bool { return len(w.within()) > 0 }

// covers reports whether the caller may act on a scope: its key is bound to no scope, to
// this one, or to one above it.
func (w caller) covers(scope string) bool {
	return w.key == nil || w.key.Covers(scope)
}

// coversAll reports whether the caller may act on every one of the scopes.
func (w caller) coversAll(scopes []string) bool {
	return !slices.ContainsFunc(scopes, func(scope string) bool { return !w.covers(scope) })
}

// needs refuses a caller whose role does not include this one.
func (w caller) needs(role earmark.Role) error {
	if w.role().Includes(role) {
		return nil
	}
	return earmark.Errorf(earmark.CodeForbidden, "this needs a key with the role %s; the key has the role %s", role, w.role())
}

// needsScopes refuses scopes other than those of the caller's key and the scopes below
// them.
func (w caller) needsScopes(field string, scopes ...string) error {
	for _, scope := range scopes {
		if !w.covers(scope) {
			return forbidden(field, "the key may not act on %q; it is bound to %s and what is below", scope, strings.Join(w.within(), ", "))
		}
	}
	return nil
}

// needsNoBounds refuses a key that is bound to scopes for a call about the whole tenant.
func (w caller) needsNoBounds() error {
	if !w.bound() {
		return nil
	}
	return earmark.Errorf(earmark.CodeForbidden, "this needs a key for all scopes; the key is bound to %s", strings.Join(w.within(), ", "))
}

// sees identifies what the caller may see: callers with the same value share answers.
func (w caller) sees() string { return w.tenant + " " + strings.Join(w.within(), " ") }
