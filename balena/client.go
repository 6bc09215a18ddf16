package balena

import (
	"context"
	"net"
	"net/http"
	"net/url"
	"sync"
	"time"

	"github.com/hashicorp/go-retryablehttp"
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
func Kinds() []string {
	return []string{"login", "totp", "refresh", "fresh", "whoami", "verify", "health", "lookup", "mint", "find", "extend", "revoke", "list"}
}

// Client sends requests to one API. It is safe for concurrent use.
type Client struct {
	base    *url.URL
	cfg     Config
	http    *retryablehttp.Client
	clock   serverClock
	mu      sync.Mutex
	held    map[bool]time.Time // until when the server wants no logins (true), and nothing else (false)
	trouble time.Time          // when the server was last unhealthy
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

// Close ends idle connections.
func (c *Client) Close() { c.http.HTTPClient.CloseIdleConnections() }

// Now returns the server's time, and whether it can be relied on: see serverClock.
func (c *Client) Now() (time.Time, bool) { return c.clock.now(time.Now()) }

// Skew returns how far the local clock was ahead of the server's at its last answer, and
// whether there was one.
func (c *Client) Skew() (time.Duration, bool) { return c.clock.skew() }

// URL returns the API's base URL, without a slash at its end.
func (c *Client) URL() string { return c.base.String() }
