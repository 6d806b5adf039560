package api

import (
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"

	"github.com/gin-gonic/gin"

	"github.com/earmark-dev/earmark"
	"github.com/earmark-dev/earmark/internal/keys"
)

const (
	authorizationHeader = "Authorization"
	// challenge is the WWW-Authenticate header of a 401.
	challenge = `Bearer realm="earmark"`
)

// authenticate determines the caller, before the trace and the log of the call name its
// subject. If that fails, requireCaller answers.
func (s *server) authenticate(c *gin.Context) {
	var found identity
	if found.err = noKeyInURL(c.Request.URL); found.err == nil && s.neededRole(c) != "" {
		found.caller, found.err = s.caller(c)
	}
	c.Set(callerKey, found)
	c.Next()
}

// neededRole returns the role that the path needs; "" for a path that needs no key, and for
// one that does not exist.
func (s *server) neededRole(c *gin.Context) earmark.Role {
	return s.roles[c.Request.Method+" "+c.FullPath()]
}

// caller returns the holder of the call's key.
func (s *server) caller(c *gin.Context) (caller, error) {
	if s.credentials == nil {
		return anybody, nil
	}
	key, err := s.key(c)
	if err != nil {
		return caller{}, err
	}
	return caller{tenant: key.Tenant, key: key}, nil
}

// key is that of the header, or without one that of a browser which has signed in.
func (s *server) key(c *gin.Context) (*earmark.Key, error) {
	if len(c.Request.Header.Values(authorizationHeader)) == 0 {
		if key, err := s.signedIn(c); key != nil || err != nil {
			return key, err
		}
	}
	text, err := bearer(c.Request.Header)
	if err != nil {
		return nil, err
	}
	return s.keyOf(c.Request.Context(), text)
}

// requireCaller refuses a call without a key, and one whose key may not make it.
func (s *server) requireCaller(c *gin.Context) {
	found := identityOf(c)
	if needed := s.neededRole(c); found.err == nil && needed != "" {
		found.err = found.caller.needs(needed) // mutation: role
	}
	if found.err != nil {
		c.Header("Cache-Control", "no-store")
		s.fail(c, found.err)
		c.Abort()
		return
	}
	c.Next()
}

// bearer reads the key from the header.
func bearer(header http.Header) (string, error) {
	values := header.Values(authorizationHeader)
	switch len(values) {
	case 0:
		return "", unauthenticated("a key is needed: send it as \"Authorization: Bearer emk_…\"; `earmark key create` makes one")
	case 1:
	default:
		return "", earmark.Invalidf(authorizationHeader, "is given %d times; send one key", len(values))
	}
	scheme, text, _ := strings.Cut(values[0], " ")
	if !strings.EqualFold(scheme, "Bearer") {
		return "", unauthenticated("the scheme is not supported: send \"Authorization: Bearer emk_…\"")
	}
	return strings.TrimLeft(text, " "), nil
}

func unauthenticated(format string, args ...any) error {
	err := earmark.Errorf(earmark.CodeUnauthenticated, format, args...)
	err.Field = authorizationHeader
	return err
}

// keyNames are query parameters in which other products accept keys.
var keyNames = []string{"access_token", "api_key", "apikey", "key", "token"}

// keyInQuery finds a key, and text that begins like one. A cursor, also random text,
// never matches.
var keyInQuery = regexp.MustCompile(`(^|[=&;])` + keys.Prefix + `|` + keys.InText.String())

// noKeyInURL refuses a key in the path and in every parameter of the query string. Its
// error does not quote the key.
func noKeyInURL(u *url.URL) error {
	if keys.InText.MatchString(u.Path) {
		return earmark.Invalidf("", "a key in the path is refused: paths end up in logs; send it as \"Authorization: Bearer emk_…\", and revoke this one")
	}
	if u.RawQuery == "" {
		return nil
	}
	plain, err := url.QueryUnescape(u.RawQuery)
	if err != nil {
		plain = u.RawQuery
	}
	values, _ := url.ParseQuery(u.RawQuery)
	if !keyInQuery.MatchString(plain) && !slices.ContainsFunc(keyNames, values.Has) {
		return nil
	}
	return earmark.Invalidf("", "a key in the query string is refused: query strings end up in logs; send it as \"Authorization: Bearer emk_…\", and revoke this one")
}
