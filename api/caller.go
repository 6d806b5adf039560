package api

import (
	"slices"
	"strings"

	"github.com/gin-gonic/gin"

	"github.com/earmark-dev/earmark"
)

// caller is on whose behalf a call is made. A zero caller is of a path that needs no key.
type caller struct {
	tenant string
	key    *earmark.Key // nil where the server works without keys
}

// anybody is the caller of a server without keys.
var anybody = caller{tenant: earmark.DefaultTenant}

const callerKey = "caller"

// identity is what authenticate found out.
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

// role is what the caller may do.
func (w caller) role() earmark.Role {
	if w.key == nil {
		return earmark.RoleAdmin
	}
	return w.key.Role
}

// actor is how the journal names the caller.
func (w caller) actor() earmark.Actor {
	if w.key == nil {
		return earmark.ActorAPI
	}
	return earmark.ActorAPI.WithKey(w.key.ID)
}

// operator is how the journal names a person who acts with the caller's key.
func (w caller) operator(name string) earmark.Actor {
	return earmark.OperatorActor(name).WithKey(w.actor().Key)
}

// within are the scopes that the caller is bound to; none for every scope.
func (w caller) within() []string {
	if w.key == nil {
		return nil
	}
	return w.key.Scopes
}

// bound reports whether the caller is bound to scopes.
func (w caller) bound() bool { return len(w.within()) > 0 }

// covers reports whether the caller may act on a scope: it is bound to none, or to this one or one above it.
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

// needsScopes refuses scopes that are neither those of the caller's key nor below them.
func (w caller) needsScopes(field string, scopes ...string) error {
	for _, scope := range scopes {
		if !w.covers(scope) {
			return forbidden(field, "the key may not act on %q; it is bound to %s and what is below", scope, strings.Join(w.within(), ", "))
		}
	}
	return nil
}

// needsNoBounds refuses a key that is bound to scopes where a call is about the whole tenant.
func (w caller) needsNoBounds() error {
	if !w.bound() {
		return nil
	}
	return earmark.Errorf(earmark.CodeForbidden, "this needs a key for all scopes; the key is bound to %s", strings.Join(w.within(), ", "))
}

// sees names what the caller may see: answers are shared among callers with the same.
func (w caller) sees() string { return w.tenant + " " + strings.Join(w.within(), " ") }
