package balenatest

import (
	"context"
	"errors"
	"io"
	"log"
	"net"
	"net/http"
	"sync"
	"syscall"
	"testing"
)

// Start serves s on loopback until the test ends, and returns its URL.
func (s *Server) Start(t testing.TB) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s.serve(t, l)
	return "http://" + l.Addr().String()
}

// Pipe serves s on an in-memory network until the test ends. It returns a URL and a dialer
// that leads to s whatever the address. In a testing/synctest bubble everything about it is in
// virtual time.
func (s *Server) Pipe(t testing.TB) (url string, dial func(ctx context.Context, network, addr string) (net.Conn, error)) {
	t.Helper()
	l := &pipes{conns: make(chan net.Conn), done: make(chan struct{})}
	s.serve(t, l)
	return "http://127.0.0.1", func(ctx context.Context, network, addr string) (net.Conn, error) {
		s.mu.Lock()
		refuses := s.refuses
		s.mu.Unlock()
		if refuses {
			return nil, &net.OpError{Op: "dial", Net: network, Err: syscall.ECONNREFUSED}
		}
		return l.dial(ctx, network, addr)
	}
}

func (s *Server) serve(t testing.TB, l net.Listener) {
	srv := &http.Server{Handler: s, ErrorLog: log.New(io.Discard, "", 0)}
	done := make(chan struct{})
	go func() { defer close(done); _ = srv.Serve(l) }()
	t.Cleanup(func() { _ = srv.Close(); <-done; s.Settle() })
}

// pipes is a net.Listener whose connections are net.Pipes.
type pipes struct {
	conns chan net.Conn
	once  sync.Once
	done  chan struct{}
}

func (p *pipes) dial(ctx context.Context, _, _ string) (net.Conn, error) {
	mine, theirs := net.Pipe()
	select {
	case p.conns <- theirs:
		return mine, nil
	case <-p.done:
		return nil, errors.New("connection refused")
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.conns:
		return c, nil
	case <-p.done:
		return nil, net.ErrClosed
	}
}

func (p *pipes) Close() error { p.once.Do(func() { close(p.done) }); return nil }

func (p *pipes) Addr() net.Addr { return &net.UnixAddr{Name: "pipe", Net: "pipe"} }
