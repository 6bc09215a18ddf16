package main

import (
	"net/http"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/balena-injector/injector/balena/balenatest"
	"github.com/balena-injector/injector/internal/tally"
)

// TestAKeyThatCannotBeRevokedHoldsNoOtherUp stops with three keys, of which the server never answers to one's end.
func TestAKeyThatCannotBeRevokedHoldsNoOtherUp(t *testing.T) {
	for _, stuck := range []string{"one", "two", "three"} {
		t.Run(stuck, func(t *testing.T) {
			t.Parallel()
			s := newStage(t, balenatest.Options{})
			delete(s.env, "INJECTOR_OUTPUT")
			s.set("INJECTOR_KEYS", "one,two,three", "INJECTOR_SHUTDOWN_TIMEOUT", "2s")
			for _, name := range []string{"one", "two", "three"} {
				s.set("INJECTOR_"+strings.ToUpper(name)+"_OUTPUT", filepath.Join(s.dir, name))
			}
			p := s.start("run")
			s.ready()
			s.wantLive(3)
			victim, others := s.keyOf(stuck)
			s.server.Fail(balenatest.Fault{ // all together are refused, so that each goes its own way
				Kind:   "revoke",
				Status: http.StatusBadRequest,
				Match:  func(m balenatest.Match) bool { return !strings.Contains(m.Path, "(") },
			})
			hits := s.server.Fail(balenatest.Fault{
				Kind:  "revoke",
				Hang:  true,
				Match: func(m balenatest.Match) bool { return strings.Contains(m.Path, "("+itoa(int(victim.ID))+")") },
			})
			began := time.Now()
			p.signal(syscall.SIGTERM)
			if code := p.wait(6 * time.Second); code != int(exitLeft) {
				t.Errorf("exit %d", code)
			}
			if took := time.Since(began); took > tally.Slow(4*time.Second) {
				t.Errorf("it took %v", took)
			}
			if n, _ := hits(); n == 0 {
				t.Error("nobody asked for its end")
			}
			s.wantLive(1)
			for _, k := range s.server.Live() {
				if k.ID != victim.ID {
					t.Errorf("left: %s", k.Name)
				}
			}
			for _, k := range others {
				s.wantNotBlamed(p, k)
			}
			contains(t, p.stderr.String(), "left to expire, not revoked: "+victim.Name)
			s.server.Heal()
			s.want(0, "revoke")
			s.wantLive(0)
		})
	}
}

// keyOf returns the key in a file, and all others.
func (s *stage) keyOf(file string) (it balenatest.Key, others []balenatest.Key) {
	s.t.Helper()
	for _, k := range s.server.Live() {
		if k.Secret == s.reads(file) {
			it = k
		} else {
			others = append(others, k)
		}
	}
	if it.ID == 0 {
		s.t.Fatalf("%s holds no live key", file)
	}
	return it, others
}

// wantNotBlamed looks for a key's name where those are told that were left.
func (s *stage) wantNotBlamed(p *proc, k balenatest.Key) {
	s.t.Helper()
	for line := range strings.Lines(p.stderr.String()) {
		if strings.Contains(line, "left to expire") && strings.Contains(line, k.Name) {
			s.t.Errorf("%s was revoked, and is said to be left: %s", k.Name, line)
		}
	}
}
