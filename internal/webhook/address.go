package webhook

import (
	"fmt"
	"net/netip"
	"net/url"
	"slices"
	"syscall"

	"github.com/earmark-dev/earmark"
)

// maxURLBytes bounds the URL of an endpoint.
const maxURLBytes = 2048

// Allowed says which endpoints may be called besides public addresses over https.
type Allowed struct {
	// Private allows http, and addresses that are not public. It is for tests and for receivers in one's own network.
	Private bool
}

// ValidateURL checks the URL of an endpoint. What its name resolves to is checked when it is called. The error is
// CodeInvalidRequest and names field.
func (a Allowed) ValidateURL(field, text string) error {
	u, err := url.Parse(text)
	switch {
	case len(text) > maxURLBytes, err != nil, u.Host == "", u.Hostname() == "", u.User != nil, u.Fragment != "":
		return earmark.Invalidf(field, "is not an address such as https://example.com/hooks, without a user and a fragment, of at most %d bytes", maxURLBytes)
	case a.Private && u.Scheme != "https" && u.Scheme != "http":
		return earmark.Invalidf(field, "has the scheme %q; https or http is needed", earmark.Clip(u.Scheme))
	case !a.Private && u.Scheme != "https":
		return earmark.Invalidf(field, "has the scheme %q; https is needed", earmark.Clip(u.Scheme))
	}
	if ip, err := netip.ParseAddr(u.Hostname()); err == nil && !a.allows(ip) {
		return earmark.Invalidf(field, "%s is not a public address", ip)
	}
	return nil
}

// notPublic are the ranges that are no destination on the internet, as the registries of IANA for special-purpose
// addresses list them, and those that embed an IPv4 address.
var notPublic = parsePrefixes(
	"0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.0.0.0/24", "192.0.2.0/24",
	"192.88.99.0/24", "192.168.0.0/16", "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24", "224.0.0.0/4", "240.0.0.0/4",
	"::/96", "64:ff9b::/96", "64:ff9b:1::/48", "100::/64", "2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20", "5f00::/16",
	"fc00::/7", "fe80::/10", "fec0::/10", "ff00::/8",
)

func parsePrefixes(texts ...string) (prefixes []netip.Prefix) {
	for _, text := range texts {
		prefixes = append(prefixes, netip.MustParsePrefix(text))
	}
	return prefixes
}

func (a Allowed) allows(ip netip.Addr) bool {
	ip = ip.Unmap().WithZone("")
	return a.Private || !slices.ContainsFunc(notPublic, func(p netip.Prefix) bool { return p.Contains(ip) })
}

// control refuses a connection to an address that is not allowed. The dialer calls it after the name was resolved,
// with the address that it is about to connect to, so no later answer of a name server can get around it.
func (a Allowed) control(_, address string, _ syscall.RawConn) error {
	target, err := netip.ParseAddrPort(address)
	if err != nil {
		return fmt.Errorf("the address %q does not parse: %w", address, err)
	}
	if !a.allows(target.Addr()) {
		return errNotPublic // without the address: it may be a name of the operator's network
	}
	return nil
}
