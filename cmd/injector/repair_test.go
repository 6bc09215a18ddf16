package main

import (
	"os"
	"testing"
	"time"

	"github.com/balena-injector/injector/balena/balenatest"
)

// TestAnOutputIsWrittenAgainAtOnce after an app has changed it in any way; its directory is found to be another one by a
// look every half a minute.
func TestAnOutputIsWrittenAgainAtOnce(t *testing.T) {
	s := newStage(t, balenatest.Options{})
	p := s.start("run")
	s.ready()
	token, err := os.ReadFile(s.token())
	if err != nil {
		t.Fatal(err)
	}
	s.eventually("the directory is watched", func() bool { return p.stderr.String() != "" })
	time.Sleep(500 * time.Millisecond)
	for name, spoil := range map[string]func() error{
		"removed":   func() error { return os.Remove(s.token()) },
		"its mode":  func() error { return os.Chmod(s.token(), 0o600) },
		"a link":    func() error { _ = os.Remove(s.token()); return os.Symlink("/etc/passwd", s.token()) },
		"truncated": func() error { _ = os.Chmod(s.token(), 0o600); return os.Truncate(s.token(), 0) },
	} {
		if err := spoil(); err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		s.eventually(name, func() bool {
			info, err := os.Lstat(s.token())
			raw, _ := os.ReadFile(s.token())
			return err == nil && info.Mode() == 0o440 && string(raw) == string(token)
		})
		if took := time.Since(began); took > 3*time.Second {
			t.Errorf("%s: written again after %v", name, took)
		}
		time.Sleep(1100 * time.Millisecond) // what is changed again and again is written less often
	}
	s.wantLive(1)
}
