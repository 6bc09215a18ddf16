package balena

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"time"
)

func pool(extra []byte) (*x509.CertPool, error) {
	if extra == nil {
		return nil, nil // the system's, loaded when first needed
	}
	roots, err := x509.SystemCertPool()
	if err != nil {
		roots = x509.NewCertPool()
	}
	if !roots.AppendCertsFromPEM(extra) {
		return nil, errors.New("holds no PEM certificate")
	}
	return roots, nil
}

// maxConns is how many requests of all keys are under way at once: a thousand keys that start
// together wait in line instead of opening a thousand connections.
const maxConns = 8

func newTransport(roots *x509.CertPool, dial func(context.Context, string, string) (net.Conn, error)) *http.Transport {
	if dial == nil {
		dial = (&net.Dialer{Timeout: 10 * time.Second}).DialContext
	}
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true) // one request at a time needs no HTTP/2, nor its memory
	return &http.Transport{
		Proxy: http.ProxyFromEnvironment,

		OnProxyConnectResponse: refusedByProxy,
		DialContext:            dial,
		Protocols:              protocols,
		TLSClientConfig:        &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: roots},
		TLSHandshakeTimeout:    10 * time.Second,
		MaxConnsPerHost:        maxConns,
		MaxIdleConns:           maxConns,
		MaxIdleConnsPerHost:    maxConns,
		IdleConnTimeout:        4 * time.Second, // Node servers end theirs after 5: do not race them
		ReadBufferSize:         2 << 10,
		WriteBufferSize:        2 << 10,
	}
}

// goodPort reports whether a URL has no port, or one that can be.
func goodPort(u *url.URL) bool {
	if strings.HasSuffix(u.Host, ":") {
		return false
	}
	n, err := strconv.Atoi(u.Port())
	return u.Port() == "" || err == nil && n > 0 && n < 1<<16
}

func loopback(host string) bool {
	addr, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && addr.IsLoopback()
}

// CheckURL parses an API's base URL. It must be https, or http to a loopback address (or to any
// host if allowHTTP), without user, query or fragment.
func CheckURL(raw string, allowHTTP bool) (*url.URL, error) {
	u, err := url.Parse(strings.TrimRight(raw, "/"))
	switch {
	case InQuotes(raw):
		return nil, errors.New("is between quotes")
	case err != nil || u.Host == "" || u.Hostname() == "" || !goodPort(u):
		return nil, errors.New("must be a URL such as https://api.balena-cloud.com")
	case u.User != nil || strings.ContainsAny(raw, "?#"):
		return nil, errors.New("must have no user, query or fragment")
	case u.Scheme == "http" && !allowHTTP && !loopback(u.Hostname()):
		return nil, errors.New("must start with https://: plain http would send the account's password in the clear")
	case u.Scheme != "https" && u.Scheme != "http":
		return nil, errors.New("must start with https://")
	}
	return u, nil
}
