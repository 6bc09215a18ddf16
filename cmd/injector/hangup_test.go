package main

import (
	"net/http"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/balena-injector/injector/balena/balenatest"
)

// including is an injector with a template that includes a file, in which "north" is written. It returns what the
// output shows before that, and writes another word into the file.
func including(t *testing.T) (s *stage, p *proc, shows string, include func(string)) {
	t.Helper()
	s = newStage(t, balenatest.Options{})
	parts := filepath.Join(s.dir, "parts")
	if err := os.Mkdir(parts, 0o755); err != nil {
		t.Fatal(err)
	}
	template := filepath.Join(s.dir, "app.tmpl")
	writeText(t, template, "{{.Token}} {{.KeyID}} {{file \"zone\"}}")
	include = func(word string) { writeFile(t, filepath.Join(parts, "zone"), word) }
	include("north")
	s.set("INJECTOR_TEMPLATES", template+":"+filepath.Join(s.dir, "app.conf"), "INJECTOR_TEMPLATE_FILES", parts, "INJECTOR_OUTPUT",
		s.token(), "INJECTOR_CHECK_INTERVAL", "1s")
	p = s.start("run")
	s.ready()
	// The key's id comes a moment after the first publication, and is a publication as well.
	shows = s.reads("balena-token") + " " + itoa(int(s.server.Live()[0].ID)) + " "
	s.eventually("the file with all it includes", func() bool { return s.reads("app.conf") == shows+"north" })
	return s, p, shows, include
}

// TestHangupRereadsWhatATemplateIncludes changes an included file, which nobody watches.
func TestHangupRereadsWhatATemplateIncludes(t *testing.T) {
	t.Parallel()
	s, p, shows, include := including(t)
	include("south")
	checks := s.server.Count("verify")
	s.eventually("two more looks at the key", func() bool { return s.server.Count("verify") >= checks+2 })
	if got := s.reads("app.conf"); got != shows+"north" || s.server.Count("extend") > 0 {
		t.Errorf("without a signal: %q", got)
	}
	p.signal(syscall.SIGHUP)
	s.eventually("the included file as it is now", func() bool { return s.reads("app.conf") == shows+"south" })
	p.says("reading the credentials again")
	p.says("reading the templates again")
	if n := s.server.Count("mint"); n != 1 {
		t.Errorf("%d mints", n)
	}
	s.ready()
	p.stop()
}

// TestHangupRereadsWhileTheServerCannotExtend shows that what is here needs no server.
func TestHangupRereadsWhileTheServerCannotExtend(t *testing.T) {
	t.Parallel()
	s, p, shows, include := including(t)
	include("south")
	s.server.Fail(balenatest.Fault{Kind: "extend", Status: http.StatusServiceUnavailable})
	p.signal(syscall.SIGHUP)
	s.eventually("the included file as it is now", func() bool { return s.reads("app.conf") == shows+"south" })
	p.stop()
}
