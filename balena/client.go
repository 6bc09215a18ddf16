package balena

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/go-retryablehttp"

	"github.com/balena-injector/injector/key"
)

const (
	// maxBody caps what is read of an answer: the longest one that means anything is a page of
	// expired keys.
	maxBody = 256 << 10
	// DefaultTimeout is how long one request may take, its answer's last byte included.
	DefaultTimeout = 20 * time.Second
	// repeatAfter is the pause before the one repetition of a request whose kept connection broke.
	repeatAfter = 200 * time.Millisecond
	// maxRetryAfter is how long a server may make us wait.
	maxRetryAfter = time.Hour
	// defaultRetryAfter is the wait for a 429 that names none.
	defaultRetryAfter = time.Minute
)

// Config says how to reach an API.
type Config struct {
	URL       string        // the API's base, such as https://api.balena-cloud.com; required
	AllowHTTP bool          // allow plain http to other hosts than loopback
	CAs       []byte        // PEM certificates trusted beside the system's; nil for none
	Timeout   time.Duration // for one request; 0 means DefaultTimeout
	UserAgent string        // what to call ourselves; "" means the package's name

	// Observe, if not nil, is told of each request that was sent: its kind (see Kinds), the
	// class of its failure ("ok" without one), and how long it took. It must not block.
	Observe func(kind, class string, took time.Duration)
	// Dial, if not nil, replaces the network, for tests.
	Dial func(ctx context.Context, network, addr string) (net.Conn, error)
}

// Kinds lists the kinds of request that Config.Observe may be told of.
var Kinds = []string{"login", "totp", "refresh", "fresh", "whoami", "verify", "health", "lookup", "mint", "find", "extend", "revoke", "list"}

// Client sends requests to one API. It is safe for concurrent use.
type Client struct {
	base    *url.URL
	cfg     Config
	http    *retryablehttp.Client
	clock   serverClock
	mu      sync.Mutex
	held    map[bool]time.Time // until when the server wants no logins (true), and nothing else (false)
	trouble time.Time          // when the server last was unwell
	alone   time.Time          // until when each request has a connection of its own
}

// NewClient checks cfg and returns a client for it. It sends nothing. Errors say what is wrong
// with the URL or the certificates.
func NewClient(cfg Config) (*Client, error) {
	base, err := CheckURL(cfg.URL, cfg.AllowHTTP)
	if err != nil {
		return nil, err
	}
	roots, err := pool(cfg.CAs)
	if err != nil {
		return nil, err
	}
	if cfg.Timeout == 0 {
		cfg.Timeout = DefaultTimeout
	}
	if cfg.UserAgent == "" {
		cfg.UserAgent = "balena-token-injector"
	}
	c := &Client{base: base, cfg: cfg, held: map[bool]time.Time{}}
	c.http = &retryablehttp.Client{
		HTTPClient: &http.Client{
			Transport: gated{newTransport(roots, cfg.Dial)},
			// A redirect would turn a POST into a GET, and carry the credential elsewhere.
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
		RetryMax:     1,
		CheckRetry:   repeatBroken,
		Backoff:      func(time.Duration, time.Duration, int, *http.Response) time.Duration { return repeatAfter },
		ErrorHandler: retryablehttp.PassthroughErrorHandler,
	}
	return c, nil
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

// Close ends idle connections.
func (c *Client) Close() { c.http.HTTPClient.CloseIdleConnections() }

// Now returns the server's time, and whether it can be relied on: see serverClock.
func (c *Client) Now() (time.Time, bool) { return c.clock.now(time.Now()) }

// Skew returns how far the local clock was ahead of the server's at its last answer, and
// whether there was one.
func (c *Client) Skew() (time.Duration, bool) { return c.clock.skew() }

// request is one exchange to be.
type request struct {
	kind   string // one of Kinds
	op     string // for people
	method string
	path   string // with its query, escaped
	bearer key.Secret
	body   any          // marshalled as JSON; nil for none
	sent   []key.Secret // secrets in the body, kept out of errors
	gate   Gate         // nil: obedient

	connected bool // it was given a connection, so that something may have been sent
	reused    bool // and that one had served others before
}

// answer is what came back, whatever its status.
type answer struct {
	status  int
	body    []byte
	arrived time.Time
}

// failure builds the Error of a request that was answered otherwise than hoped.
func (r *request) failure(class key.Class, a *answer, reason string) *Error {
	e := &Error{Class: class, Op: r.op, Reason: reason}
	if a != nil {
		e.Status = a.status
		if said := quoted(a.body, append(r.sent, r.bearer)...); reason == "" && said != "" {
			e.Reason = strconv.Quote(said)
		}
	}
	return e
}

// do sends a request. It returns an answer with status 200 or 401 or 4xx, which only the caller
// can judge, or an error for all that is the same for every request: no answer, a redirect,
// 429, 5xx. The caller gets both when there was an answer.
func (c *Client) do(ctx context.Context, r request) (*answer, error) {
	began := time.Now()
	a, err := c.send(ctx, &r)
	if err == nil {
		err = c.classify(&r, a)
	}
	class := "ok"
	if err != nil {
		got, _ := key.ClassOf(err)
		class = got.String()
	} else if a.status != http.StatusOK {
		class = strconv.Itoa(a.status)
	}
	if _, unsent := errors.AsType[*notAdmitted](err); !unsent && c.cfg.Observe != nil {
		c.cfg.Observe(r.kind, class, time.Since(began))
	}
	return a, err
}

// timeout is how long one request may take.
func (c *Client) timeout(ctx context.Context) time.Duration {
	if each := key.TryTimeout(ctx); each > 0 {
		return min(each, c.cfg.Timeout)
	}
	return c.cfg.Timeout
}

func (c *Client) send(ctx context.Context, r *request) (*answer, error) {
	ctx, cancel := context.WithTimeout(ctx, c.timeout(ctx))
	defer cancel()
	req, err := c.build(ctx, r)
	if err != nil {
		return nil, err
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, c.noAnswer(r, err)
	}
	defer func() { _ = resp.Body.Close() }()
	a := &answer{status: resp.StatusCode, arrived: time.Now()}
	a.body, err = io.ReadAll(io.LimitReader(resp.Body, maxBody+1))
	if err != nil {
		if r.isBroken(err) {
			c.distrustConnections()
		}
		return a, c.noAnswer(r, err)
	}
	if len(a.body) > maxBody {
		a.body = nil
		return a, c.unwell(r.failure(r.unsettled(key.Outage), a, "the answer is longer than any that this API gives"))
	}
	if date, err := http.ParseTime(resp.Header.Get("Date")); err == nil && r.answeredBy(a) {
		c.clock.note(date, a.arrived) // that of a gateway or a portal, which answers in the server's place, says nothing
	}
	if wait, ok := retryAfter(resp); ok {
		c.hold(r, a.arrived.Add(wait))
		class := key.Busy
		if a.status != http.StatusTooManyRequests {
			class = r.unsettled(key.Busy) // a gateway that gave up says nothing about the server behind it
		}
		return a, &Error{Class: class, Op: r.op, Status: a.status, Wait: wait, Reason: "told to wait"}
	}
	return a, nil
}

func (c *Client) build(ctx context.Context, r *request) (*retryablehttp.Request, error) {
	var body []byte
	if r.body != nil {
		var err error
		if body, err = json.Marshal(r.body); err != nil {
			return nil, fmt.Errorf("%s: %w", r.op, err)
		}
	}
	gate := r.gate
	if gate == nil {
		gate = obedient{}
	}
	ctx = context.WithValue(ctx, passKey{}, pass{client: c, gate: gate, request: r})
	req, err := retryablehttp.NewRequestWithContext(ctx, r.method, c.base.String()+r.path, body)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", r.op, err)
	}
	req.Header.Set("User-Agent", c.cfg.UserAgent)
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	if !r.bearer.IsZero() {
		req.Header.Set("Authorization", "Bearer "+r.bearer.Reveal())
	}
	return req, nil
}

// classify returns the error that an answer is for every kind of request, or nil.
func (c *Client) classify(r *request, a *answer) error {
	switch {
	case a.status >= 500:
		return c.unwell(r.failure(r.unsettled(key.Outage), a, ""))
	case a.status >= 300 && a.status < 400:
		return r.notThisAPI(key.Wrong, a, "a redirect, which is refused: is the URL right, with https?")
	case a.status == http.StatusProxyAuthRequired:
		e := r.failure(key.Wrong, a, "the proxy wants a login")
		e.Cause = Proxied
		return e
	case a.otherScheme():
		e := r.failure(key.Wrong, a, "https is spoken there, not plain http")
		e.Cause = OtherScheme
		return e
	case a.status == http.StatusRequestTimeout:
		return c.unwell(r.failure(r.unsettled(key.Outage), a, ""))
	case a.status != http.StatusOK && a.status < 400:
		return c.unwell(r.notThisAPI(r.unsettled(key.Outage), a, "not an answer that this API gives"))
	}
	return nil
}

// unsettled turns an outage during a mint into an ambiguity: the server may have done it all the
// same. Extending and revoking can simply be sent again.
func (r *request) unsettled(class key.Class) key.Class {
	if r.kind == "mint" {
		return key.Ambiguous
	}
	return class
}

// noAnswer explains a request without an answer.
func (c *Client) noAnswer(r *request, err error) error {
	if refused, ok := errors.AsType[*notAdmitted](err); ok {
		return &Error{Class: key.Busy, Op: r.op, Wait: refused.wait, Reason: refused.why, Err: refused}
	}
	e := &Error{Class: key.Outage, Op: r.op, Err: withoutURL(err)}
	if r.connected { // something may have been sent
		e.Class = r.unsettled(key.Outage)
	}
	e.explain(err)
	c.blameProxy(e)
	return c.unwell(e)
}

// withoutURL drops the method and URL that net/http puts before an error: op says it better.
func withoutURL(err error) error {
	if u, ok := errors.AsType[*url.Error](err); ok {
		err = u.Err
	}
	if errors.Is(err, context.DeadlineExceeded) {
		return errors.New("no answer in time")
	}
	return err
}

// unwell remembers that the server was unwell just now.
func (c *Client) unwell(e *Error) *Error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.trouble = time.Now()
	return e
}

// lastTrouble returns when the server last was unwell; the zero time if never.
func (c *Client) lastTrouble() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.trouble
}

// decode reads a JSON answer, or says that it is none: a captive portal answers 200 as well.
func decode(r *request, a *answer, into any) error {
	d := json.NewDecoder(bytes.NewReader(a.body))
	if err := d.Decode(into); err != nil {
		return r.notThisAPI(key.Outage, a, "not the JSON that this API gives")
	}
	return nil
}

// URL returns the API's base URL, without a slash at its end.
func (c *Client) URL() string { return c.base.String() }
