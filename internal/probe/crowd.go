package probe

import (
	"net"
	"net/http"
	"slices"
	"sync"
)

// maxConns is how many connections a listener has at most. A connection costs some 10 kB, and everybody who can reach the
// address can open thousands.
const maxConns = 32

// crowd keeps the connections of one server few: the oldest one that waits for a request makes room for a new one, so
// that those who ask are answered however many others only connect.
type crowd struct {
	mu    sync.Mutex
	conns []net.Conn // the oldest first
	busy  map[net.Conn]bool
}

func newCrowd() *crowd { return &crowd{busy: map[net.Conn]bool{}} }

// note is an http.Server's ConnState.
func (c *crowd) note(conn net.Conn, state http.ConnState) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch state {
	case http.StateNew:
		c.conns = append(c.conns, conn)
		if len(c.conns) > maxConns {
			_ = c.oldestIdle().Close()
		}
	case http.StateActive:
		c.busy[conn] = true
	case http.StateIdle:
		delete(c.busy, conn)
	case http.StateClosed, http.StateHijacked:
		c.forget(conn)
	}
}

// oldestIdle takes the connection out that waits longest: the new one, which is the last, if all others are being answered.
func (c *crowd) oldestIdle() net.Conn {
	i := slices.IndexFunc(c.conns, func(conn net.Conn) bool { return !c.busy[conn] })
	conn := c.conns[i]
	c.forget(conn)
	return conn
}

func (c *crowd) forget(conn net.Conn) {
	delete(c.busy, conn)
	c.conns = slices.DeleteFunc(c.conns, func(other net.Conn) bool { return other == conn })
}
