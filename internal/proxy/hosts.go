package proxy

import (
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// checkHost refuses what a browser sends to this machine's own address under a name of somebody else's: a page can have the name
// of its own site lead here, and is of the same origin then. Where callers are asked who they are such a page shows nothing.
func (g *gateway) checkHost(r *http.Request) error {
	if g.server.serving.Load().authenticator != nil {
		return nil
	}
	return g.checkName(r)
}

// checkName is checkHost whether callers are asked who they are or not.
func (g *gateway) checkName(r *http.Request) error {
	if !reachedLocally(r) || g.isOurs(r.Host) {
		return nil
	}
	return status.Errorf(codes.PermissionDenied, "this server is not called %s: ask for localhost or for an address, or add the "+
		"name to listen.hosts in the configuration", shorten(r.Host))
}

// isOurs tells whether a Host header is an address, localhost, or one of the server's names.
func (g *gateway) isOurs(host string) bool {
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	host = strings.ToLower(strings.TrimSuffix(strings.Trim(host, "[]"), "."))
	if _, err := netip.ParseAddr(host); err == nil || host == "" { // a browser sends one
		return true
	}
	named := func(name string) bool { return strings.EqualFold(name, host) }
	return host == "localhost" || strings.HasSuffix(host, ".localhost") || slices.ContainsFunc(g.server.cfg.Hosts, named)
}

// reachedLocally tells whether a request came to an address that only this machine has.
func reachedLocally(r *http.Request) bool {
	at, ok := r.Context().Value(http.LocalAddrContextKey).(net.Addr)
	if !ok {
		return false
	}
	addr, err := netip.ParseAddrPort(at.String())
	return err == nil && addr.Addr().Unmap().IsLoopback()
}
