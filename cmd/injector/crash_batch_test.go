package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/balena-injector/injector/balena/balenatest"
)

// batchKeys are the keys of these tests: several, and so few that they are not listed.
var batchKeys = []string{"ka", "kb", "kc", "kd", "ke"}

// TestCrashMatrixOfBatches kills an injector of several keys at each request that is about all of them, before and after
// its effect and with the effect coming later, while they are extended and while they are revoked; and starts it again.
func TestCrashMatrixOfBatches(t *testing.T) {
	binary := buildReleased(t)
	for _, c := range []struct {
		signal syscall.Signal // what makes the injector send the requests
		kind   string
		skip   int
	}{
		{syscall.SIGHUP, "list", 0}, {syscall.SIGHUP, "extend", 0}, {syscall.SIGHUP, "list", 1},
		{syscall.SIGTERM, "find", 0}, {syscall.SIGTERM, "list", 0}, {syscall.SIGTERM, "revoke", 0}, {syscall.SIGTERM, "list", 1},
	} {
		for name, f := range map[string]balenatest.Fault{"before": {Hang: true}, "after": {Hang: true, After: true},
			"later": {Hang: true, Late: 300 * time.Millisecond}} {
			t.Run(fmt.Sprintf("%v-%s-%d-%s", c.signal, c.kind, c.skip+1, name), func(t *testing.T) {
				t.Parallel()
				s := newStage(t, balenatest.Options{})
				s.binary = binary
				delete(s.env, "INJECTOR_OUTPUT")
				s.set("INJECTOR_KEYS", strings.Join(batchKeys, ","), "INJECTOR_TTL", "10m", "INJECTOR_CHECK_INTERVAL", "1s",
					"INJECTOR_STATE_DIR", filepath.Join(s.dir, ".injector"))
				for _, key := range batchKeys {
					s.set("INJECTOR_"+strings.ToUpper(key)+"_OUTPUT", filepath.Join(s.dir, key))
				}
				victim := s.server.AddKey(s.server.DefaultUser(), "injector-somebody's", time.Time{})
				p := s.start("run")
				s.ready()
				if c.signal == syscall.SIGHUP { // the ids are known then
					s.eventually("an extension of all", func() bool {
						p.signal(syscall.SIGHUP)
						time.Sleep(300 * time.Millisecond)
						return s.server.Count("extend") > 0
					})
				}
				f.Kind, f.Skip, f.Times = c.kind, c.skip, 1
				f.Match = func(m balenatest.Match) bool { return m.Path == "/v7/api_key" }
				hits := s.server.Fail(f)
				p.signal(c.signal)
				s.eventually("the request", func() bool { hit, _ := hits(); return hit > 0 })
				_ = p.cmd.Process.Kill()
				p.wantKilled()
				s.manyRecovered(victim)
			})
		}
	}
}

// manyRecovered starts an injector of several keys again after a crash, and checks what must hold then.
func (s *stage) manyRecovered(victim *balenatest.Key) {
	s.t.Helper()
	s.server.Heal()
	p := s.start("run")
	s.ready()
	s.server.Settle()
	s.eventually("one live key for each app", func() bool {
		for _, key := range batchKeys {
			token, err := os.ReadFile(filepath.Join(s.dir, key))
			if err != nil || !s.server.Accepts(string(token)) {
				return false
			}
		}
		return len(s.server.Live()) == len(batchKeys)+1 // with the victim
	})
	p.signal(syscall.SIGTERM)
	if code := p.wait(8 * time.Second); code != 0 {
		s.t.Errorf("exit %d", code)
	}
	if !s.server.Accepts(victim.Secret) {
		s.t.Error("somebody else's key is gone")
	}
	s.server.DeleteKey(victim.ID)
	s.wantLive(0)
}
