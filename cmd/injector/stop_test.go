package main

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/balena-injector/injector/agent"
	"github.com/balena-injector/injector/balena/balenatest"
	"github.com/balena-injector/injector/internal/tally"
	"github.com/balena-injector/injector/key"
)

// countPoints lives until the first key is revoked after a rotation, and returns how many pieces
// of file work and requests that took.
func countPoints(t *testing.T, binary string) (points, requests int) {
	s := crashStage(t, binary)
	record := filepath.Join(t.TempDir(), "points")
	s.set("CRASH_LOG", record)
	p := s.start("run")
	s.eventually("a rotation", func() bool { return s.server.Count("revoke") > 0 && s.settled() })
	raw, err := os.ReadFile(record)
	if err != nil {
		t.Fatal(err)
	}
	// One journal write less: two may become one.
	points, requests = strings.Count(string(raw), "\n")-8, s.server.Count("")
	p.stop()
	return points, requests
}

// What there was to be stopped at when this was written, which is less than to be killed at: a life is over at the
// stop. The numbers may grow.
const (
	leastStopPoints   = 110
	leastStopRequests = 9
)

// stopBudget is INJECTOR_SHUTDOWN_TIMEOUT, which nobody has set.
const stopBudget = 7 * time.Second

var stopTook = regexp.MustCompile(`msg="stopped; nothing is left that could be revoked" took=(\S+)`)

// TestStopMatrix sends SIGTERM at every point of a life: at each piece of file work, and during
// each request before and after its effect. Nothing is left, and the exit code is 0. Then it does
// so with a server that falls silent at each request.
func TestStopMatrix(t *testing.T) {
	binary := buildToCrash(t)
	points, requests := countPoints(t, binary)
	t.Logf("%d points of file work, %d requests", points, requests)
	if points < leastStopPoints || requests < leastStopRequests {
		t.Errorf("%d points of file work, %d requests", points, requests)
	}
	for n := 1; n <= points; n++ {
		t.Run(fmt.Sprintf("file-work-%d", n), func(t *testing.T) {
			t.Parallel()
			s := crashStage(t, binary)
			victim := s.server.AddKey(s.server.DefaultUser(), "somebody's", time.Time{})
			s.set("CRASH_AT", itoa(n), "CRASH_WITH", "term")
			stop := s.watchFile()
			s.stoppedWell(s.start("run"), victim)
			stop()
		})
	}
	for n := range requests {
		for name, f := range map[string]balenatest.Fault{"before": {}, "after": {After: true}, "later": {Late: 600 * time.Millisecond}} {
			t.Run(fmt.Sprintf("request-%d-%s", n+1, name), func(t *testing.T) {
				t.Parallel()
				s := crashStage(t, binary)
				victim := s.server.AddKey(s.server.DefaultUser(), "somebody's", time.Time{})
				f.Delay, f.Pass, f.Skip, f.Times = 200*time.Millisecond, true, n, 1
				p := s.startUntil(f)
				p.signal(syscall.SIGTERM)
				s.stoppedWell(p, victim)
			})
		}
		t.Run(fmt.Sprintf("silence-from-request-%d", n+1), func(t *testing.T) {
			t.Parallel()
			silence(t, binary, n)
		})
	}
}

// startUntil starts an injector and waits until the fault hits.
func (s *stage) startUntil(f balenatest.Fault) *proc {
	s.t.Helper()
	hits := s.server.Fail(f)
	p := s.start("run")
	s.eventually("the request", func() bool { n, _ := hits(); return n > 0 })
	return p
}

// stoppedWell waits for the end of an injector that was told to stop: nothing is left.
func (s *stage) stoppedWell(p *proc, victim *balenatest.Key) {
	s.t.Helper()
	tally.Add("stops at file work or requests", 1)
	code := p.wait(20 * time.Second)
	if code != 0 {
		s.t.Errorf("exit %d", code)
	}
	if m := stopTook.FindStringSubmatch(p.stderr.String()); m == nil {
		s.t.Error("the log does not say how long the stop took")
	} else if took, err := time.ParseDuration(m[1]); err != nil || took > stopBudget {
		s.t.Errorf("the stop took %v of %v (%v)", m[1], stopBudget, err)
	}
	strays, _ := filepath.Glob(filepath.Join(s.dir, "*", ".*.part"))
	more, _ := filepath.Glob(filepath.Join(s.dir, ".*.part"))
	if strays = append(strays, more...); len(strays) > 0 {
		s.t.Errorf("strays: %v", strays)
	}
	s.wantNoFile()
	if !s.server.Accepts(victim.Secret) {
		s.t.Error("somebody else's key is gone")
	}
	s.server.DeleteKey(victim.ID)
	s.wantLive(0)
}

// silence stops an injector whose server answers nothing from the nth request on: it ends in its
// budget, names what may be left, and that is gone at its expiry.
func silence(t *testing.T, binary string, n int) {
	s := crashStage(t, binary)
	tally.Add("stops at file work or requests", 1)
	s.set("INJECTOR_SHUTDOWN_TIMEOUT", "1s")
	p := s.startUntil(balenatest.Fault{Hang: true, Skip: n})
	began := time.Now()
	p.signal(syscall.SIGTERM)
	code := p.wait(10 * time.Second)
	if took := time.Since(began); took > tally.Slow(2500*time.Millisecond) {
		t.Errorf("it took %v", took)
	}
	live := s.server.Live()
	if code != int(exitLeft) && (code != int(exitDone) || len(live) > 0) {
		t.Errorf("exit %d with %d live keys", code, len(live))
	}
	for _, k := range live {
		contains(t, p.stderr.String(), "left to expire", k.Name)
	}
	s.wantNoFile()
	s.server.ShiftClock(time.Hour)
	s.wantLive(0)
}

func TestStopDuringInit(t *testing.T) {
	for _, kind := range []string{"login", "mint", "verify", "find"} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			s := newStage(t, balenatest.Options{})
			hits := s.server.Fail(balenatest.Fault{Kind: kind, After: true, Pass: true, Delay: 300 * time.Millisecond})
			p := s.start("init")
			s.eventually("the request", func() bool { n, _ := hits(); return n > 0 })
			p.signal(syscall.SIGTERM)
			if code := p.wait(8 * time.Second); code != int(exitFailed) {
				t.Errorf("exit %d", code)
			}
			contains(t, p.stderr.String(), "stopped by signal")
			s.wantLive(0)
			s.wantNoFile()
		})
	}
}

// TestStartedWithAnotherConfiguration hands a key over to a start that is configured otherwise.
func TestStartedWithAnotherConfiguration(t *testing.T) {
	start := func(t *testing.T) (*stage, balenatest.Key) {
		t.Parallel()
		s := newStage(t, balenatest.Options{})
		p := s.start("run")
		s.ready()
		p.signal(syscall.SIGQUIT)
		p.wait(5 * time.Second)
		return s, s.server.Live()[0]
	}
	t.Run("URL", func(t *testing.T) {
		s, old := start(t)
		other := newStage(t, balenatest.Options{})
		s.set("BALENA_API_URL", other.url)
		p := s.start("run")
		s.ready()
		for _, bearer := range other.server.Bearers() {
			if bearer == old.Secret {
				t.Error("the other server was sent the key")
			}
		}
		contains(t, p.stderr.String(), "belongs to another API", old.Name)
		p.signal(syscall.SIGTERM)
		if code := p.wait(8 * time.Second); code != 0 {
			t.Errorf("exit %d", code)
		}
		other.wantLive(0)
		s.server.ShiftClock(time.Hour) // nobody can revoke it: it expires
		s.wantLive(0)
	})
	t.Run("account", func(t *testing.T) {
		s, old := start(t)
		u := s.server.AddUser("another", "another password", "")
		s.set("BALENA_USERNAME", u.Name, "BALENA_PASSWORD", u.Password)
		p := s.start("run")
		s.ready()
		contains(t, p.stderr.String(), "belongs to another account", old.Name)
		p.signal(syscall.SIGTERM)
		if code := p.wait(8 * time.Second); code != 0 {
			t.Errorf("exit %d", code)
		}
		s.server.ShiftClock(time.Hour)
		s.wantLive(0)
	})
	t.Run("target", func(t *testing.T) {
		s, old := start(t)
		s.set("INJECTOR_KIND", "fleet", "INJECTOR_TARGET", s.server.DefaultFleet().Slug)
		p := s.start("run")
		s.ready()
		s.eventually("the user key's end", func() bool { return !s.server.Accepts(old.Secret) })
		p.signal(syscall.SIGTERM)
		if code := p.wait(8 * time.Second); code != 0 {
			t.Errorf("exit %d", code)
		}
		for _, k := range s.server.Live() {
			if k.Kind != key.Fleet {
				t.Errorf("left: %+v", k)
			}
		}
	})
	t.Run("TTL", func(t *testing.T) {
		s, old := start(t)
		s.set("INJECTOR_TTL", "2m")
		p := s.start("run")
		s.ready()
		s.eventually("the shorter expiry", func() bool {
			live := s.server.Live()
			return len(live) == 1 && live[0].ID == old.ID && time.Until(live[0].Expiry) <= 2*time.Minute+time.Second
		})
		p.stop()
	})
}

// TestAKeyTakenOutThatCannotBeRevoked has a key that is not configured any more, whose DELETE fails until after the
// stop: it is named, and the exit code says so, of run and of revoke. The next start revokes it.
func TestAKeyTakenOutThatCannotBeRevoked(t *testing.T) {
	t.Parallel()
	s := newKeysStage(t)
	p := s.start("run")
	s.ready()
	var left *agent.KeyStatus // the fleet's
	s.eventually("the key's id", func() bool { left = s.report().Keys[1].Key; return left.ID != 0 })
	p.signal(syscall.SIGQUIT)
	p.wait(5 * time.Second)
	s.set("INJECTOR_KEYS", "deploy")
	for name := range s.env {
		if strings.HasPrefix(name, "INJECTOR_FLEET_") {
			delete(s.env, name)
		}
	}
	s.server.Fail(balenatest.Fault{
		Kind:   "revoke",
		Status: 503,
		Match:  func(m balenatest.Match) bool { return strings.Contains(m.Path, fmt.Sprintf("(%d)", left.ID)) },
	})
	p = s.start("run")
	s.ready()
	s.eventually("a try", func() bool { return strings.Contains(p.stderr.String(), "could not revoke an old key") })
	p.signal(syscall.SIGTERM)
	if code := p.wait(9 * time.Second); code != int(exitLeft) {
		t.Errorf("exit %d", code)
	}
	contains(t, p.stderr.String(), "left to expire", left.Name)
	s.wantLive(1) // the other one is gone
	s.set("INJECTOR_INIT_TIMEOUT", "2s")
	contains(t, s.want(int(exitLeft), "revoke"), "left to expire", left.Name)
	s.server.Heal()
	s.want(0, "revoke")
	s.wantLive(0)
}

// TestASlowDisk has a state directory whose disk takes a second for each write, and a stop at every tenth of a second of
// a short life. Each stop is over within its time, and the key is dead.
func TestASlowDisk(t *testing.T) {
	binary := buildToCrash(t)
	for n := range 20 {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			t.Parallel()
			s := newStage(t, balenatest.Options{})
			s.binary = binary
			s.set("CRASH_SLOW", "1s", "INJECTOR_SHUTDOWN_TIMEOUT", "3s", "INJECTOR_CHECK_INTERVAL", "1s")
			p := s.start("run")
			s.eventually("a mint", func() bool { return s.server.Count("mint") == 1 })
			time.Sleep(time.Duration(n) * 400 * time.Millisecond) // a real disk, and a real stop
			began := time.Now()
			p.signal(syscall.SIGTERM)
			code := p.wait(10 * time.Second)
			if took := time.Since(began); took > 4*time.Second || code != 0 {
				t.Errorf("exit %d after %v", code, took)
			}
			s.wantLive(0)
		})
	}
}
