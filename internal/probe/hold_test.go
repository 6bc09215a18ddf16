package probe

import (
	"context"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// pipes is a listener in memory, whose connections a bubble's clock drives.
type pipes struct {
	conns chan net.Conn
	ended chan struct{}
}

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case conn := <-p.conns:
		return conn, nil
	case <-p.ended:
		return nil, net.ErrClosed
	}
}

func (p *pipes) Close() error   { close(p.ended); return nil }
func (p *pipes) Addr() net.Addr { return &net.UnixAddr{Name: "pipes", Net: "unix"} }

// dial connects to the server.
func (p *pipes) dial() net.Conn {
	here, there := net.Pipe()
	p.conns <- there
	return here
}

// ask sends a request and returns status and body, and after what time they came. No answer has the status 0.
func (p *pipes) ask(ctx context.Context, path string) (code int, body string, took time.Duration) {
	began := time.Now()
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true,
		DialContext: func(context.Context, string, string) (net.Conn, error) { return p.dial(), nil }}}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://injector"+path, nil)
	if err != nil {
		panic(err)
	}
	resp, err := client.Do(req)
	if err != nil {
		return 0, err.Error(), time.Since(began)
	}
	defer func() { _ = resp.Body.Close() }()
	raw, err := io.ReadAll(resp.Body)
	if err != nil {
		return 0, err.Error(), time.Since(began)
	}
	return resp.StatusCode, strings.TrimSpace(string(raw)), time.Since(began)
}

// inMemory runs a test in a bubble with a server that answers its owner on pipes, and everybody on others.
func inMemory(t *testing.T, s *Server, test func(t *testing.T, owner, everybody *pipes)) {
	synctest.Test(t, func(t *testing.T) {
		owner := &pipes{make(chan net.Conn), make(chan struct{})}
		everybody := &pipes{make(chan net.Conn), make(chan struct{})}
		ctx, cancel := context.WithCancel(context.Background())
		done := make(chan error, 1)
		go func() { done <- s.Serve(ctx, owner, everybody) }()
		test(t, owner, everybody)
		cancel()
		if err := <-done; err != nil {
			t.Errorf("it was told to end, and says: %v", err)
		}
	})
}

// becoming is an agent that can become ready.
func becoming(ready *atomic.Bool) *Server {
	return &Server{Report: func() Report {
		if ready.Load() {
			return judged(good("", "/secrets/token"))
		}
		return judged(bad("", "starting", "there is no key yet"))
	}}
}

// TestAHealthCheckIsHeldUntilThereIsNews or for as long as the one who asks may wait. Three times it is told at once that
// the agent is not ready.
func TestAHealthCheckIsHeldUntilThereIsNews(t *testing.T) {
	var ready atomic.Bool
	inMemory(t, becoming(&ready), func(t *testing.T, owner, _ *pipes) {
		ask := func(path string, code int, least, most time.Duration) {
			t.Helper()
			if got, body, took := owner.ask(t.Context(), path); got != code || took < least || took > most {
				t.Errorf("after %v it answers %d %s; not after %v to %v", took, got, body, least, most)
			}
		}
		for range 3 {
			ask("/readyz?hold=1m", 503, 0, 0)
		}
		ask("/readyz?hold=1m", 503, time.Minute, time.Minute)
		ask("/readyz", 503, 0, 0) // who does not say how long is answered
		ask("/readyz?hold=soon", 503, 0, 0)
		ask("/readyz?hold=-1s", 503, 0, 0)
		time.AfterFunc(20*time.Second, func() { ready.Store(true) })
		ask("/readyz?hold=1m", 200, 20*time.Second, 20*time.Second+holdPoll)
		ask("/readyz?hold=1m", 200, time.Minute, time.Minute)
		ask("/readyz", 200, 0, 0)
		time.AfterFunc(30*time.Second, func() { ready.Store(false) })
		ask("/readyz?hold=1m", 503, 30*time.Second, 30*time.Second+holdPoll)
	})
}

// TestNobodyIsHeldForLongerThanFiveMinutes whatever they ask for. Such an answer arrives in whole.
func TestNobodyIsHeldForLongerThanFiveMinutes(t *testing.T) {
	var ready atomic.Bool
	ready.Store(true)
	inMemory(t, becoming(&ready), func(t *testing.T, owner, _ *pipes) {
		owner.ask(t.Context(), "/readyz?hold=1s")
		if code, body, took := owner.ask(t.Context(), "/readyz?hold=100h"); code != 200 || body != "ready" || took != 5*time.Minute {
			t.Errorf("after %v it answers %d %s", took, code, body)
		}
	})
}

// TestNobodyIsHeldOverTCP as everybody could ask for it.
func TestNobodyIsHeldOverTCP(t *testing.T) {
	var ready atomic.Bool
	ready.Store(true)
	inMemory(t, becoming(&ready), func(t *testing.T, _, everybody *pipes) {
		for range 3 {
			if code, body, took := everybody.ask(t.Context(), "/readyz?hold=1m"); code != 200 || took != 0 {
				t.Errorf("after %v it answers %d %s", took, code, body)
			}
		}
	})
}

// TestWhatIsHeldIsTheAnswerAboutThoseOutputs and not that about all.
func TestWhatIsHeldIsTheAnswerAboutThoseOutputs(t *testing.T) {
	var ready atomic.Bool
	ready.Store(true)
	inMemory(t, becoming(&ready), func(t *testing.T, owner, _ *pipes) {
		for range 3 {
			if code, body, took := owner.ask(t.Context(), "/readyz?hold=1m&output=/another"); code != 503 || took != 0 {
				t.Errorf("after %v it answers %d %s", took, code, body)
			}
		}
		if code, body, took := owner.ask(t.Context(), "/readyz?hold=1m&output=/another"); code != 503 || took != time.Minute {
			t.Errorf("after %v it answers %d %s", took, code, body)
		}
	})
}

// TestWhoLeavesIsHeldNoLonger so that nobody looks for news on their behalf.
func TestWhoLeavesIsHeldNoLonger(t *testing.T) {
	var ready atomic.Bool
	ready.Store(true)
	var looks atomic.Int64
	s := becoming(&ready)
	report := s.Report
	s.Report = func() Report { looks.Add(1); return report() }
	inMemory(t, s, func(t *testing.T, owner, _ *pipes) {
		owner.ask(t.Context(), "/readyz?hold=1m")
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		if code, body, took := owner.ask(ctx, "/readyz?hold=1m"); code != 0 || took != 10*time.Second {
			t.Errorf("after %v it answers %d %s", took, code, body)
		}
		synctest.Wait()
		before := looks.Load()
		time.Sleep(30 * time.Second)
		if more := looks.Load() - before; more != 0 {
			t.Errorf("it has looked %d times since", more)
		}
	})
}
