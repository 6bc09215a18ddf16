package main

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/balena-injector/injector/balena/balenatest"
	"github.com/balena-injector/injector/internal/tally"
)

// What an undisturbed life had when this was written. The numbers may grow.
const (
	leastFilePoints = 126
	leastRequests   = 11
)

// crashStage is a stage whose injector is built to crash, and whose server makes it live fast: the
// server's clock jumps ahead once the first key is published, so that it is replaced at once.
func crashStage(t *testing.T, binary string) *stage {
	s := newStage(t, balenatest.Options{})
	var jump sync.Once
	fast := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.Contains(r.URL.RawQuery, "orderby") {
			jump.Do(func() { s.server.ShiftClock(8 * time.Minute) })
		}
		s.server.ServeHTTP(w, r)
	}))
	t.Cleanup(fast.Close)
	s.binary = binary
	s.set("BALENA_API_URL", fast.URL, "INJECTOR_TTL", "10m", "INJECTOR_MAX_TTL", "10m", "INJECTOR_OVERLAP", "500ms", "INJECTOR_LOG_LEVEL",
		"info")
	return s
}

// life runs an injector until it has minted, published, rotated and revoked, and then stops it.
// It returns early when the injector dies.
func (s *stage) life(env ...string) *proc {
	s.t.Helper()
	s.set(env...)
	p := s.start("run")
	for i := 0; i < len(env); i += 2 {
		delete(s.env, env[i])
	}
	deadline := time.After(15 * time.Second)
	for s.server.Count("revoke") == 0 || !s.settled() {
		select {
		case <-p.done:
			return p
		case <-deadline:
			s.t.Fatal("the key was not rotated")
		case <-time.After(5 * time.Millisecond):
		}
	}
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-p.done:
	case <-time.After(10 * time.Second):
		s.t.Fatal("it did not stop")
	}
	return p
}

// settled reports whether the journal shows one key, which is published: the rotation is over, and
// what follows is the same each time.
func (s *stage) settled() bool {
	raw, err := os.ReadFile(filepath.Join(s.stateDir(), "journal.json"))
	return err == nil && strings.Count(string(raw), `"name"`) == 1 && strings.Contains(string(raw), `"published"`)
}

// wantKilled checks that an injector was killed, and did not end by itself before.
func (p *proc) wantKilled() {
	p.s.t.Helper()
	<-p.done
	if status := p.cmd.ProcessState.Sys().(syscall.WaitStatus); status.Signal() != syscall.SIGKILL {
		p.s.t.Errorf("it was not killed: %v", p.cmd.ProcessState)
	}
	tally.Add("kills at file work or requests", 1)
}

// recovered starts an injector again after a crash, and checks what must hold then.
func (s *stage) recovered(victim *balenatest.Key) {
	s.t.Helper()
	s.server.Heal()
	// A deletion that comes later kills an adopted key; that is noticed at the next check.
	s.set("INJECTOR_TTL", "10m", "INJECTOR_MAX_TTL", "24h", "INJECTOR_CHECK_INTERVAL", "1s")
	p := s.start("run")
	s.ready()
	s.server.Settle()
	s.eventually("one live key, which the app reads", func() bool {
		token, err := os.ReadFile(s.token())
		return err == nil && s.server.Accepts(string(token)) && len(s.server.Live()) == 2 // with the victim
	})
	p.signal(syscall.SIGTERM)
	if code := p.wait(8 * time.Second); code != 0 {
		s.t.Errorf("exit %d", code)
	}
	for _, dir := range []string{s.dir, s.stateDir()} {
		strays, _ := filepath.Glob(filepath.Join(dir, ".*.part"))
		if len(strays) > 0 {
			s.t.Errorf("strays: %v", strays)
		}
	}
	s.wantNoFile()
	if !s.server.Accepts(victim.Secret) {
		s.t.Error("somebody else's key is gone")
	}
	s.server.DeleteKey(victim.ID)
	s.wantLive(0)
}

// watchFile checks the app's file all the while: whole values only, of keys that the server has made.
func (s *stage) watchFile() (stop func()) {
	done := make(chan struct{})
	var group sync.WaitGroup
	made := map[string]bool{}
	note := func() {
		for _, k := range s.server.All() { // what is deleted is not among them
			made[k.Secret] = true
		}
	}
	group.Go(func() {
		for {
			note()
			select {
			case <-done:
				return
			case <-time.After(time.Millisecond):
			}
			raw, err := os.ReadFile(s.token())
			if err != nil {
				continue
			}
			tally.Add("reads by apps", 1)
			if note(); !made[string(raw)] {
				tally.Add("bad reads", 1)
				s.t.Errorf("the app read %d bytes that were never a key", len(raw))
			}
		}
	})
	return func() { close(done); group.Wait() }
}

func buildToCrash(t *testing.T) string {
	t.Helper()
	return buildWith(t, "crash")
}

// buildReleased builds the binary as it is released, without the race detector.
func buildReleased(t *testing.T) string {
	t.Helper()
	binary := buildWith(t, "")
	if info, err := os.Stat(binary); err != nil || info.Size() > 10_500_000 {
		t.Errorf("the binary has %d bytes, want at most 10.5 MB (%v)", info.Size(), err)
	}
	return binary
}

// buildWith builds the released binary with further tags.
func buildWith(t *testing.T, tags string) string {
	t.Helper()
	binary := filepath.Join(t.TempDir(), "injector")
	cmd := exec.Command("sh", filepath.Join("..", "..", "build.sh"), binary, tags)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return binary
}

// TestCrashMatrix kills the injector at every point of its life: at each piece of file work and
// at each request, before and after its effect and with the effect coming later; and starts it
// again.
func TestCrashMatrix(t *testing.T) {
	binary := buildToCrash(t)
	whole := crashStage(t, binary)
	record := filepath.Join(t.TempDir(), "points")
	if p := whole.life("CRASH_LOG", record); p.wait(time.Second) != 0 {
		t.Fatalf("the undisturbed life: %s", p.stderr.String())
	}
	raw, err := os.ReadFile(record)
	if err != nil {
		t.Fatal(err)
	}
	points, requests := strings.Count(string(raw), "\n"), whole.server.Count("")
	t.Logf("%d points of file work, %d requests", points, requests)
	if points < leastFilePoints || requests < leastRequests {
		t.Errorf("%d points of file work and %d requests; there were %d and %d", points, requests, leastFilePoints, leastRequests)
	}
	for n := 1; n <= points; n++ {
		t.Run(fmt.Sprintf("file-work-%d", n), func(t *testing.T) {
			t.Parallel()
			s := crashStage(t, binary)
			victim := s.server.AddKey(s.server.DefaultUser(), "somebody's", time.Time{})
			stop := s.watchFile()
			if p := s.life("CRASH_AT", itoa(n)); n <= points-8 { // two journal writes at the stop may become one
				p.wantKilled()
			}
			s.recovered(victim)
			stop()
		})
	}
	for n := range requests {
		for name, f := range map[string]balenatest.Fault{"before": {Hang: true}, "after": {Hang: true, After: true},
			"later": {Hang: true, Late: 300 * time.Millisecond}} {
			t.Run(fmt.Sprintf("request-%d-%s", n+1, name), func(t *testing.T) {
				t.Parallel()
				s := crashStage(t, binary)
				victim := s.server.AddKey(s.server.DefaultUser(), "somebody's", time.Time{})
				f.Skip, f.Times = n, 1
				hits := s.server.Fail(f)
				stop := s.watchFile()
				p := s.start("run")
				var end sync.Once
				s.eventually("the request", func() bool {
					hit, _ := hits()
					if hit == 0 && s.server.Count("revoke") > 0 && s.settled() {
						end.Do(func() { _ = p.cmd.Process.Signal(syscall.SIGTERM) }) // the last requests come at the stop
					}
					select {
					case <-p.done:
						return true // fewer requests this time
					default:
						return hit > 0
					}
				})
				_ = p.cmd.Process.Kill()
				p.wantKilled()
				s.recovered(victim)
				stop()
			})
		}
	}
}
