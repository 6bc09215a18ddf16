package main

import (
	"encoding/binary"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/balena-injector/injector/balena/balenatest"
)

const appUser = 4321

// TestOutputsBelongToTheAppFromTheFirstInstant looks at each file when it takes its name, through a rotation.
func TestOutputsBelongToTheAppFromTheFirstInstant(t *testing.T) {
	t.Parallel()
	s := newStage(t, balenatest.Options{})
	s.set("INJECTOR_OUTPUT_OWNER", "4321:4321", "INJECTOR_OUTPUT_MODE", "0400", "INJECTOR_CHECK_INTERVAL", "1s")
	stop := s.watchArrivals(map[string]fs.FileMode{"balena-token": 0o400, "balena-token.json": 0o444})
	p := s.start("run")
	s.ready()
	s.rotate()
	p.stop()
	arrived := stop()
	if arrived["balena-token"] != 2 || arrived["balena-token.json"] < 2 {
		t.Errorf("seen: %v", arrived)
	}
}

// watchArrivals checks mode and owner of the named files. The kernel tells of every change, so a file that is
// put right only after it could be seen is found out, which a loop that looks again and again may miss.
func (s *stage) watchArrivals(modes map[string]fs.FileMode) (stop func() map[string]int) {
	s.t.Helper()
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		s.t.Fatal(err)
	}
	events := os.NewFile(uintptr(fd), "inotify")
	s.t.Cleanup(func() { _ = events.Close() })
	if _, err := unix.InotifyAddWatch(fd, s.dir, unix.IN_CREATE|unix.IN_MOVED_TO|unix.IN_ATTRIB|unix.IN_DELETE_SELF); err != nil {
		s.t.Fatal(err)
	}
	arrived := map[string]int{}
	var group sync.WaitGroup
	group.Go(func() {
		buf := make([]byte, 64<<10)
		for {
			n, err := events.Read(buf)
			if err != nil {
				return
			}
			for rest := buf[:n]; len(rest) > 0; {
				var mask uint32
				var name string
				if mask, name, rest = nextEvent(rest); name == "done" {
					return
				}
				if mode, ok := modes[name]; ok {
					arrived[name]++
					s.wantArrival(mask, name, mode)
				}
			}
		}
	})
	return func() map[string]int {
		writeText(s.t, filepath.Join(s.dir, "done"), "") // behind all that has happened
		group.Wait()
		return arrived
	}
}

// nextEvent takes an event off what inotify has told.
func nextEvent(raw []byte) (mask uint32, name string, rest []byte) {
	end := unix.SizeofInotifyEvent + int(binary.NativeEndian.Uint32(raw[12:]))
	return binary.NativeEndian.Uint32(raw[4:]), strings.TrimRight(string(raw[unix.SizeofInotifyEvent:end]), "\x00"), raw[end:]
}

func (s *stage) wantArrival(mask uint32, name string, mode fs.FileMode) {
	if mask&unix.IN_MOVED_TO == 0 {
		s.t.Errorf("%s was not whole, or not its owner's, when it could be seen: event %#x", name, mask)
	}
	info, err := os.Lstat(filepath.Join(s.dir, name))
	if err != nil {
		return // the stop has removed it by now
	}
	if stat := info.Sys().(*syscall.Stat_t); info.Mode() != mode || stat.Uid != appUser || stat.Gid != appUser {
		s.t.Errorf("%s: mode %v, owner %d:%d", name, info.Mode(), stat.Uid, stat.Gid)
	}
}

// TestOutputNone has a template's file and no raw one, now and after a rotation.
func TestOutputNone(t *testing.T) {
	t.Parallel()
	s := newStage(t, balenatest.Options{})
	s.set("INJECTOR_OUTPUT", "none", "INJECTOR_TEMPLATES", "raw:"+filepath.Join(s.dir, "app"), "INJECTOR_STATE_DIR",
		filepath.Join(s.dir, "state"), "INJECTOR_CHECK_INTERVAL", "1s")
	p := s.start("run")
	s.ready()
	first := s.reads("app")
	if !s.server.Accepts(first) {
		t.Error("the template's file has no good token")
	}
	s.server.DeleteKey(s.server.Live()[0].ID)
	s.eventually("another key", func() bool { now := s.reads("app"); return now != first && s.server.Accepts(now) })
	entries, err := os.ReadDir(s.dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, entry := range entries {
		if name := entry.Name(); name != "app" && name != "app.json" && name != "state" && !strings.HasSuffix(name, ".part") {
			t.Errorf("there is %s", name)
		}
	}
	if _, err := os.Stat("none"); err == nil {
		t.Error("there is a file of that name where the injector was started")
	}
	p.stop()
	if s.reads("app")+s.reads("app.json") != "" {
		t.Error("the template's file is left")
	}
}

// TestPlacesThatMustNotBeWritten has outputs that are read at the same time, some by way of a link.
func TestPlacesThatMustNotBeWritten(t *testing.T) {
	s := newStage(t, balenatest.Options{})
	template, password := filepath.Join(s.dir, "app.tmpl"), filepath.Join(s.dir, "password")
	writeText(t, template, "{{.Token}}")
	writeText(t, password, s.env["BALENA_PASSWORD"])
	link := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(s.dir, link); err != nil {
		t.Fatal(err)
	}
	for _, c := range [][]string{
		{"INJECTOR_TEMPLATES", template + ":" + template},
		{"INJECTOR_TEMPLATES", template + ":" + filepath.Join(link, "app.tmpl")},
		{"INJECTOR_TEMPLATES", "dotenv:" + template + "," + template + ":" + filepath.Join(s.dir, "other")},
		{"INJECTOR_OUTPUT", password, "BALENA_PASSWORD_FILE", password, "BALENA_PASSWORD", ""},
		{"INJECTOR_KEYS", "a,b", "INJECTOR_OUTPUT", "", "INJECTOR_A_OUTPUT", filepath.Join(s.dir, "x"), "INJECTOR_B_OUTPUT",
			filepath.Join(link, "x")},
		{"INJECTOR_SESSION_CACHE", filepath.Join(link, "session")},
		{"INJECTOR_TEMPLATE_FILES", "/proc/thread-self"},
	} {
		old := maps.Clone(s.env)
		s.set(c...)
		s.want(int(exitConfig), "check")
		s.env = old
	}
	if raw, err := os.ReadFile(password); err != nil || string(raw) != s.env["BALENA_PASSWORD"] {
		t.Error("the password's file is not as it was")
	}
	s.want(0, "check")
}

// TestTokenVariablesWithAMeaning would show the token, or be taken for something else.
func TestTokenVariablesWithAMeaning(t *testing.T) {
	s := newExecStage(t)
	for _, name := range []string{"LD_PRELOAD", "https_proxy", "BALENA_API_URL", "PATH", "BASH_ENV"} {
		s.set("INJECTOR_TOKEN_VARIABLES", name)
		contains(t, s.want(int(exitConfig), "exec", "--", "true"), name)
	}
}
