package balena

import (
	"net/http"
	"net/http/httptrace"
	"strconv"
	"strings"
	"time"
)

// Gate limits requests. Admit is asked before each one is sent, also before a repetition; held
// is how long the server has told us to wait (0: not at all). A positive answer keeps the
// request from being sent and makes it fail as key.Busy with that wait.
//
// Charge is told of a request that was sent again without asking: net/http repeats a read whose
// kept-alive connection turned out to be dead.
type Gate interface {
	Admit(held time.Duration) time.Duration
	Charge()
}

// obedient is the Gate of callers that bring none: it waits as long as the server says.
type obedient struct{}

func (obedient) Admit(held time.Duration) time.Duration { return held }

func (obedient) Charge() {}

// hold remembers a Retry-After. The login limit is one of its own: it must not keep us from
// looking after the key.
func (c *Client) hold(r *request, until time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if login := r.kind == "login"; until.After(c.held[login]) { // a shorter one does not end a longer one
		c.held[login] = until
	}
}

func (c *Client) holding(r *request) time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	return max(0, time.Until(c.held[r.kind == "login"]))
}

// retryAfter returns how long an answer tells us to wait: every 429 does, and a 503 that says
// for how long. The header has seconds or a date.
func retryAfter(resp *http.Response) (time.Duration, bool) {
	header := strings.TrimSpace(resp.Header.Get("Retry-After"))
	if resp.StatusCode != http.StatusTooManyRequests && (resp.StatusCode != http.StatusServiceUnavailable || header == "") {
		return 0, false
	}
	wait := defaultRetryAfter
	if seconds, err := strconv.ParseInt(header, 10, 64); err == nil {
		wait = time.Duration(min(max(seconds, 0), int64(maxRetryAfter/time.Second))) * time.Second
	} else if at, err := http.ParseTime(header); err == nil {
		now := time.Now()
		if date, err := http.ParseTime(resp.Header.Get("Date")); err == nil {
			now = date // the server's clock is the one that the date was written by
		}
		wait = at.Sub(now)
	}
	return min(max(wait, time.Second), maxRetryAfter), true
}

type passKey struct{}

// pass carries a request's gate to the transport, where each attempt is counted.
type pass struct {
	client  *Client
	gate    Gate
	request *request
}

// notAdmitted is a request that was not sent.
type notAdmitted struct {
	wait time.Duration
	why  string
}

func (n *notAdmitted) Error() string {
	return "not sent"
}

// gated asks the gate before each attempt.
type gated struct{ next *http.Transport }

func (g gated) RoundTrip(req *http.Request) (*http.Response, error) {
	p, ok := req.Context().Value(passKey{}).(pass)
	if ok {
		held := p.client.holding(p.request)
		if wait := p.gate.Admit(held); wait > 0 {
			why := "the request budget is used up"
			if held > 0 {
				why = "the server asked for a pause"
			}
			return nil, &notAdmitted{wait: wait, why: why}
		}
		p.sent(req.Context())
	}
	attempts := 0
	trace := &httptrace.ClientTrace{GotConn: func(conn httptrace.GotConnInfo) {
		if !ok {
			return
		}
		p.request.connected, p.request.reused = true, conn.Reused
		if attempts++; attempts > 1 {
			p.gate.Charge()
			p.sent(req.Context())
		}
	}}
	req = req.WithContext(httptrace.WithClientTrace(req.Context(), trace))
	if ok && !p.client.keepsConnections() {
		req.Close = true
	}
	return g.next.RoundTrip(req)
}

// CloseIdleConnections lets http.Client.CloseIdleConnections through.
func (g gated) CloseIdleConnections() { g.next.CloseIdleConnections() }
