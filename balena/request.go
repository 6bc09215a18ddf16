package balena

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/hashicorp/go-retryablehttp"

	"github.com/balena-injector/injector/key"
)

// request is one exchange that has not been sent yet.
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
	// authentic reports that it has the form that this API gives to an answer of its kind
	authentic bool
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
	r.report(ctx, a, err)
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
		return a, c.unhealthy(r.failure(r.unsettled(key.Outage), a, "the answer is longer than any that this API gives"))
	}
	a.authentic = r.answeredBy(a)
	if date, err := http.ParseTime(resp.Header.Get("Date")); err == nil && a.authentic {
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
		return c.unhealthy(r.failure(r.unsettled(key.Outage), a, ""))
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
		return c.unhealthy(r.failure(r.unsettled(key.Outage), a, ""))
	case a.status != http.StatusOK && a.status < 400:
		return c.unhealthy(r.notThisAPI(r.unsettled(key.Outage), a, "not an answer that this API gives"))
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

// afterwards is an error of what follows a change that was made, such as reading it back. Whatever its class says of the
// request that failed, it must not say that nothing was done.
func afterwards(err error) error {
	e, ok := errors.AsType[*Error](err)
	if !ok {
		return err
	}
	switch e.Class {
	case key.Busy, key.Wrong, key.Refused, key.FreshLogin, key.Unrevocable:
		changed := *e
		changed.Class = key.Ambiguous
		return &changed
	}
	return err
}

// noAnswer explains a request without an answer.
func (c *Client) noAnswer(r *request, err error) error {
	if refused, ok := errors.AsType[*notAdmitted](err); ok {
		e := &Error{Class: key.Busy, Op: r.op, Wait: refused.wait, Reason: refused.why, Err: refused}
		if r.connected && r.method != http.MethodGet { // it is the repetition that was not sent
			e.Class = key.Ambiguous
		}
		return e
	}
	e := &Error{Class: key.Outage, Op: r.op, Err: withoutURL(err)}
	if r.connected { // something may have been sent
		e.Class = r.unsettled(key.Outage)
	}
	e.explain(err)
	c.blameProxy(e)
	return c.unhealthy(e)
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

// unhealthy records that the server is unhealthy at the moment.
func (c *Client) unhealthy(e *Error) *Error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.trouble = time.Now()
	return e
}

// lastTrouble returns when the server was last unhealthy; the zero time if never.
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
