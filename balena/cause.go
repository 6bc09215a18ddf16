package balena

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"syscall"
	"time"

	"github.com/balena-injector/injector/key"
)

// Cause is what kind of trouble lies behind an Error, where that tells what would help. The zero Cause: nothing special.
type Cause string

const (
	Unreadable   Cause = "unreadable"    // the credential's variable or file is missing or not usable; nobody was asked
	Untrusted    Cause = "untrusted"     // nobody that is trusted here has signed the server's certificate
	OtherName    Cause = "other name"    // the certificate is for another host than the URL's
	ClockOrDates Cause = "clock"         // the certificate is outside its dates by this machine's clock
	Proxied      Cause = "proxy"         // the proxy cannot be reached, or refuses
	OtherScheme  Cause = "other scheme"  // https spoken to a port of http, or the other way round
	UnknownHost  Cause = "unknown host"  // its name is not known here
	NotListening Cause = "not listening" // the host refuses the connection
	Unreachable  Cause = "unreachable"   // no way to the host, or no answer in time
	NotThisAPI   Cause = "not this API"  // something else than a balena API answers
	NoFiles      Cause = "no files"      // this process or machine has no file descriptors left
)

// explain finds out why there was no answer.
func (e *Error) explain(err error) {
	switch {
	case proxyTrouble(err) != nil:
		e.Cause, e.Err = Proxied, proxyTrouble(err)
	case errors.As(err, new(x509.UnknownAuthorityError)):
		e.Cause = Untrusted
	case errors.As(err, new(x509.HostnameError)):
		e.Cause = OtherName
	case errors.Is(err, http.ErrSchemeMismatch):
		e.Cause, e.Reason, e.Err = OtherScheme, "plain http is spoken there, not https", nil
	case errors.Is(err, syscall.EMFILE), errors.Is(err, syscall.ENFILE):
		e.Cause = NoFiles
	case errors.Is(err, syscall.ECONNREFUSED):
		e.Cause = NotListening
	case errors.As(err, new(*net.DNSError)):
		e.Cause = UnknownHost
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, os.ErrDeadlineExceeded), isTimeout(err),
		errors.Is(err, syscall.ENETUNREACH), errors.Is(err, syscall.EHOSTUNREACH):
		e.Cause = Unreachable
	}
	if invalid, ok := errors.AsType[x509.CertificateInvalidError](err); ok && invalid.Reason == x509.Expired {
		e.Cause = ClockOrDates
		e.Reason = fmt.Sprintf("the server's certificate is outside its dates by this machine's clock, which says %s: check the clock",
			time.Now().UTC().Format(time.RFC3339))
	}
}

func isTimeout(err error) bool {
	e, ok := errors.AsType[net.Error](err)
	return ok && e.Timeout()
}

// proxyError is the answer of a proxy that does not connect us.
type proxyError struct {
	proxy  string // host and port, without the login that its URL may have
	status string
}

func (p *proxyError) Error() string { return fmt.Sprintf("the proxy %s answers %s", p.proxy, p.status) }

// refusedByProxy is an http.Transport's OnProxyConnectResponse.
func refusedByProxy(_ context.Context, proxy *url.URL, _ *http.Request, resp *http.Response) error {
	if resp.StatusCode == http.StatusOK {
		return nil
	}
	return &proxyError{proxy.Host, resp.Status}
}

// proxyTrouble returns what a proxy has to do with an error, in words; nil if nothing.
func proxyTrouble(err error) error {
	if p, ok := errors.AsType[*proxyError](err); ok {
		return p
	}
	op, ok := errors.AsType[*net.OpError](err)
	if !ok || op.Op != "proxyconnect" {
		return nil
	}
	return fmt.Errorf("the proxy cannot be reached: %w", op.Err)
}

// blameProxy names the proxy that a request without an answer went through, unless that is known to be innocent.
func (c *Client) blameProxy(e *Error) {
	proxy, err := http.ProxyFromEnvironment(&http.Request{URL: c.base})
	if err != nil || proxy == nil || e.Err == nil {
		return
	}
	switch e.Cause {
	case Untrusted, OtherName, ClockOrDates, OtherScheme, NoFiles:
		return
	case Proxied:
	default:
		e.Cause, e.Err = Proxied, fmt.Errorf("through the proxy %s: %w", proxy.Host, e.Err)
	}
}

// otherScheme reports whether http was spoken to a port of https, as servers say it.
func (a *answer) otherScheme() bool {
	text := strings.ToLower(string(a.body))
	return a.status == http.StatusBadRequest && strings.Contains(text, "http request") && strings.Contains(text, "https")
}

// notThisAPI is the error of an answer that no balena API gives.
func (r *request) notThisAPI(class key.Class, a *answer, reason string) *Error {
	e := r.failure(class, a, reason)
	e.Cause = NotThisAPI
	return e
}
