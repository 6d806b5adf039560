package api

import (
	"net"
	"net/http"
	"slices"
	"strings"

	"github.com/gin-gonic/gin"

	"github.com/earmark-dev/earmark"
)

// access refuses calls that a page of another site makes a browser send. Without keys every
// caller that reaches the port may spend, and such a page must not be among them.
type access struct {
	hosts       []string // names that the server answers to, besides the safe ones
	uiOrigin    string   // of Temporal UI, whose pages may decrypt payloads and do nothing else
	crossOrigin *http.CrossOriginProtection
}

func newAccess(hosts []string, uiOrigin string) access {
	return access{hosts: hosts, uiOrigin: uiOrigin, crossOrigin: http.NewCrossOriginProtection()}
}

// check refuses a call to a host name that a stranger may have pointed at this server, and
// a change that comes from a page of another origin.
func (a access) check(r *http.Request) error {
	if host := hostname(r.Host); !a.knows(host) {
		return forbidden("Host", "%q is not a name of this server; call it by its IP address, or name the host with --allowed-hosts", earmark.Clip(host))
	}
	if r.URL.Path == codecPath && a.uiOrigin != "" && r.Header.Get("Origin") == a.uiOrigin {
		return nil
	}
	if err := a.crossOrigin.Check(r); err != nil {
		return forbidden("Origin", "a page of another site may not call %s here", r.Method)
	}
	return nil
}

// knows reports whether host is safe: an IP address, a configured name, or a name without a
// dot, which nobody can register and point here.
func (a access) knows(host string) bool {
	return net.ParseIP(host) != nil || !strings.Contains(host, ".") || strings.HasSuffix(host, ".localhost") ||
		slices.ContainsFunc(a.hosts, func(name string) bool { return strings.EqualFold(name, host) })
}

// hostname returns the name in a Host header, without its port.
func hostname(host string) string {
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	return strings.TrimSuffix(strings.Trim(host, "[]"), ".")
}

func forbidden(field, format string, args ...any) error {
	err := earmark.Errorf(earmark.CodeForbidden, format, args...)
	err.Field = field
	return err
}

// refuseStrangers applies access as middleware.
func (s *server) refuseStrangers(c *gin.Context) {
	if err := s.access.check(c.Request); err != nil {
		c.Header("Cache-Control", "no-store")
		s.fail(c, err)
		c.Abort()
		return
	}
	c.Next()
}
