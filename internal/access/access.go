// Package access refuses calls that a page of another site makes a browser send. Without keys
// every caller that reaches a port may spend, and such a page must not be among them.
package access

import (
	"net"
	"net/http"
	"slices"
	"strings"

	"github.com/earmark-dev/earmark"
)

// Access says which calls a server admits.
type Access struct {
	hosts       []string // names that the server answers to, besides the safe ones
	origin      string   // whose pages may call path, and nothing else
	path        string
	crossOrigin *http.CrossOriginProtection
}

// New returns an Access. hosts are the names that the server answers to, besides IP addresses
// and names without a dot.
func New(hosts []string) Access {
	return Access{hosts: hosts, crossOrigin: http.NewCrossOriginProtection()}
}

// But returns an Access that also admits calls of path by the pages of one origin; "" is none.
func (a Access) But(origin, path string) Access {
	a.origin, a.path = origin, path
	return a
}

// Check refuses a call to a host name that a stranger may have pointed at this server, and
// a change that comes from a page of another origin. The error is CodeForbidden.
func (a Access) Check(r *http.Request) error {
	if host := hostname(r.Host); !a.knows(host) {
		return forbidden("Host", "%q is not a name of this server; call it by its IP address, or name the host with --allowed-hosts", earmark.Clip(host))
	}
	if a.origin != "" && r.URL.Path == a.path && r.Header.Get("Origin") == a.origin {
		return nil
	}
	if err := a.crossOrigin.Check(r); err != nil {
		return forbidden("Origin", "a page of another site may not call %s here", r.Method)
	}
	return nil
}

// knows reports whether host is safe: an IP address, a configured name, or a name without a
// dot, which nobody can register and point here.
func (a Access) knows(host string) bool {
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
