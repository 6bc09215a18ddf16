package balena

import (
	"context"
	"errors"
	"net"
	"net/http"
	"time"
)

// repeatable reports whether a request may be sent a second time when its connection broke: it was read only, or its
// second effect is the first one's. A login or a code could be counted twice, and a mint is settled by the agent.
func (r *request) repeatable() bool {
	return r.method == http.MethodGet || r.method == http.MethodPatch || r.method == http.MethodDelete
}

// repeatBroken is the only retry below the agent's: what is repeatable and whose connection broke is sent once more, on
// a new connection. All else goes up, where the schedule and the request budget decide.
func repeatBroken(ctx context.Context, resp *http.Response, err error) (bool, error) {
	p, _ := ctx.Value(passKey{}).(pass)
	if err == nil || ctx.Err() != nil || p.request == nil || !p.request.isBroken(err) {
		return false, nil
	}
	// A proxy that drops what comes second on a connection would do so again.
	p.client.distrustConnections()
	return resp == nil && p.request.repeatable(), nil
}

// isBroken reports whether err says that a connection was cut that had served others: the server, or a proxy, may have
// ended it for itself. One that was made for this request says that the server is in trouble.
func (r *request) isBroken(err error) bool {
	if timeout, ok := errors.AsType[net.Error](err); ok && timeout.Timeout() {
		return false
	}
	return r.reused
}

// distrust is how long after a cut each request gets a connection of its own.
const distrust = 10 * time.Minute

// distrustConnections makes the client use each connection for one request only, for a while.
func (c *Client) distrustConnections() {
	c.mu.Lock()
	c.alone = time.Now().Add(distrust)
	c.mu.Unlock()
	c.http.HTTPClient.CloseIdleConnections()
}

// keepsConnections reports whether connections are used for more than one request at the moment.
func (c *Client) keepsConnections() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return !time.Now().Before(c.alone)
}
