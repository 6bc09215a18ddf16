package probe

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"testing"
	"testing/synctest"
	"time"
)

// crowd connects that often, and asks nothing.
func (p *pipes) crowd(t *testing.T, n int) []net.Conn {
	t.Helper()
	var all []net.Conn
	for range n {
		conn := p.dial()
		t.Cleanup(func() { _ = conn.Close() })
		all = append(all, conn)
		synctest.Wait()
	}
	return all
}

// open reports whether the server has not closed a connection.
func open(conn net.Conn) bool {
	_ = conn.SetReadDeadline(time.Now().Add(time.Millisecond))
	_, err := conn.Read(make([]byte, 1))
	return err != io.EOF
}

// slow is an agent that needs two seconds to know whether it is ready.
func slow() *Server {
	return &Server{
		Alive:  func() bool { return true },
		Report: func() Report { time.Sleep(2 * time.Second); return judged(good("")) },
	}
}

// TestWhoOnlyConnectsMakesRoom for those who ask, the oldest first.
func TestWhoOnlyConnectsMakesRoom(t *testing.T) {
	inMemory(t, slow(), func(t *testing.T, _, everybody *pipes) {
		idle := everybody.crowd(t, maxConns+7)
		if code, body, took := everybody.ask(t.Context(), "/livez"); code != 200 || took != 0 {
			t.Errorf("after %v it answers %d %s", took, code, body)
		}
		for i, conn := range idle {
			if want := i >= 8; open(conn) != want { // seven made room for others of them, and one for who asked
				t.Errorf("number %d of %d is open: %v", i, len(idle), !want)
			}
		}
	})
}

// TestWhoHasAskedIsNotCutOff before the answer, however many connect. After it they make room as the others do.
func TestWhoHasAskedIsNotCutOff(t *testing.T) {
	inMemory(t, slow(), func(t *testing.T, _, everybody *pipes) {
		asks := everybody.crowd(t, 1)[0]
		if _, err := io.WriteString(asks, "GET /readyz HTTP/1.1\r\nHost: injector\r\n\r\n"); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		others := everybody.crowd(t, maxConns)
		resp, err := http.ReadResponse(bufio.NewReader(asks), nil)
		if err != nil || resp.StatusCode != http.StatusOK {
			t.Fatalf("the answer: %v", err)
		}
		if _, err := io.Copy(io.Discard, resp.Body); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if open(others[0]) || !open(others[1]) {
			t.Errorf("of the others the oldest is open: %v, and the next: %v", open(others[0]), open(others[1]))
		}
		if !open(asks) {
			t.Error("who was answered is cut off though there is room")
		}
		everybody.crowd(t, 1)
		if open(asks) || !open(others[1]) {
			t.Errorf("who was answered is open: %v, and one who came later: %v", open(asks), open(others[1]))
		}
	})
}

// TestWhereAllHaveAskedTheLatestIsTurnedAway and all others are answered.
func TestWhereAllHaveAskedTheLatestIsTurnedAway(t *testing.T) {
	inMemory(t, slow(), func(t *testing.T, _, everybody *pipes) {
		codes := make(chan int, maxConns)
		for range maxConns {
			go func() {
				code, _, _ := everybody.ask(t.Context(), "/readyz")
				codes <- code
			}()
			synctest.Wait()
		}
		if code, body, took := everybody.ask(t.Context(), "/readyz"); code != 0 || took != 0 {
			t.Errorf("after %v it answers %d %s", took, code, body)
		}
		for range maxConns {
			if code := <-codes; code != 200 {
				t.Errorf("one of them is answered %d", code)
			}
		}
		if code, body, _ := everybody.ask(t.Context(), "/readyz"); code != 200 {
			t.Errorf("when there is room again it answers %d %s", code, body)
		}
	})
}

// TestOneListenersCrowdIsNotTheOthers as the owner must be answered however many come over TCP.
func TestOneListenersCrowdIsNotTheOthers(t *testing.T) {
	inMemory(t, slow(), func(t *testing.T, owner, everybody *pipes) {
		mine := owner.crowd(t, 1)[0]
		everybody.crowd(t, 2*maxConns)
		if !open(mine) {
			t.Error("the owner is cut off")
		}
	})
}

// TestWhoNeverAsksIsCutOff after a few seconds.
func TestWhoNeverAsksIsCutOff(t *testing.T) {
	inMemory(t, slow(), func(t *testing.T, owner, everybody *pipes) {
		for _, p := range []*pipes{owner, everybody} {
			conn := p.crowd(t, 1)[0]
			began := time.Now()
			_, err := io.WriteString(conn, "GET /readyz HT")
			if _, e := io.Copy(io.Discard, conn); err != nil || e != nil {
				t.Fatal(err, e)
			}
			if took := time.Since(began); took > 30*time.Second {
				t.Errorf("after %v", took)
			}
		}
	})
}
