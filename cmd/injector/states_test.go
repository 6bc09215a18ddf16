package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/balena-injector/injector/balena/balenatest"
	"github.com/balena-injector/injector/internal/probe"
)

// situation is one that an injector can be in, and what all that tell of it have to say.
type situation struct {
	name  string
	ready bool
	live  int // keys at the end
	enter func(t *testing.T, s *stage)
	says  []string // in each of status, explain and healthcheck
	never []string // in none of them
}

var failing = balenatest.Fault{Status: 503}

// fault is failing for one kind of request.
func fault(kind string) balenatest.Fault {
	f := failing
	f.Kind = kind
	return f
}

// says waits until the log has a text.
func (p *proc) says(text string) {
	p.s.t.Helper()
	p.s.eventually(text, func() bool { return strings.Contains(p.stderr.String(), text) })
}

func (s *stage) usePasswordFile(t *testing.T) (path string) {
	t.Helper()
	path = filepath.Join(s.dir, "password")
	writeFile(t, path, s.env["BALENA_PASSWORD"])
	delete(s.env, "BALENA_PASSWORD")
	s.set("BALENA_PASSWORD_FILE", path)
	return path
}

// freeze stops a process, and waits until all its threads stand still: one on another processor may go on for a moment.
func (p *proc) freeze() {
	p.s.t.Helper()
	p.signal(syscall.SIGSTOP)
	p.s.eventually("a stopped process", func() bool {
		threads, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", p.cmd.Process.Pid))
		for _, thread := range threads {
			if raw, err := os.ReadFile(thread); err == nil && !strings.Contains(string(raw), ") T ") {
				return false
			}
		}
		return len(threads) > 0
	})
}

func (s *stage) startReady() *proc {
	s.t.Helper()
	p := s.start("run")
	s.ready()
	return p
}

// situations are twelve in which somebody may find an injector at night.
var situations = []situation{
	{name: "healthy", ready: true, live: 1, enter: func(_ *testing.T, s *stage) { s.startReady() }, never: []string{"rouble", "could not"}},
	{name: "extending fails", ready: true, live: 1, enter: func(_ *testing.T, s *stage) {
		p := s.startReady()
		s.server.Fail(fault("extend"))
		p.signal(syscall.SIGHUP)
		p.says("could not extend")
	}, says: []string{"it could not extend the key", "503", "the next try is"}},
	{name: "credential unreadable", ready: true, live: 1, enter: func(t *testing.T, s *stage) {
		path := s.usePasswordFile(t)
		p := s.startReady()
		writeFile(t, path, "")
		p.says("cannot be read")
	}, says: []string{"the next login will fail", "BALENA_PASSWORD_FILE", "is empty", "mend the variable or file"}},
	{name: "refused, with tries left", enter: func(_ *testing.T, s *stage) {
		s.set("BALENA_PASSWORD", "wrong")
		s.start("run").says("is not accepted")
	}, says: []string{"there is no key yet", "is not accepted", "4 of 5 tries", "the next try is in 9 min", "BALENA_PASSWORD_FILE"}},
	{name: "refused, without tries left", enter: func(_ *testing.T, s *stage) {
		for n := range 5 {
			s.set("BALENA_PASSWORD", fmt.Sprint("wrong", n))
			s.want(int(exitRefused), "init")
		}
		s.set("BALENA_PASSWORD", s.server.DefaultUser().Password)
		s.start("run").says("was not asked")
	}, says: []string{"there is no key yet", "balena was not asked", "no try of this hour is left", "the next try is in 5", "check --now"}},
	{name: "dead and replaceable", enter: func(_ *testing.T, s *stage) {
		s.set("INJECTOR_CHECK_INTERVAL", "1s")
		p := s.startReady()
		s.server.Fail(fault("mint"))
		s.server.DeleteKey(s.server.Live()[0].ID)
		p.says("could not mint the key")
	}, says: []string{"dead", "not replaced yet", "could not mint the key", "the next try is"}, never: []string{"would last",
		"will be extended", "accepts it"}},
	{name: "dead and not replaceable", enter: func(_ *testing.T, s *stage) {
		delete(s.env, "BALENA_USERNAME")
		delete(s.env, "BALENA_PASSWORD")
		s.set("BALENA_SESSION_TOKEN", s.server.Session(s.server.DefaultUser(), 17*time.Minute), "INJECTOR_CHECK_INTERVAL", "1s")
		p := s.startReady()
		s.server.ShiftClock(3 * time.Minute)
		s.server.DeleteKey(s.server.Live()[0].ID)
		p.says("could not prepare a new key")
	}, says: []string{"dead", "not replaced yet", "20 minutes old", "the next try is in 59 min", "set BALENA_USERNAME and BALENA_PASSWORD"},
		never: []string{"would last", "will be extended"}},
	{name: "outage", ready: true, live: 1, enter: func(_ *testing.T, s *stage) {
		s.set("INJECTOR_CHECK_INTERVAL", "1s")
		p := s.startReady()
		p.says("published")
		s.eventually("its id", func() bool {
			r, err := probe.AskReport(s.t.Context(), s.stateDir(), nil)
			return err == nil && r.Keys[0].Key.ID != 0
		})
		s.server.SetDown(true)
		p.says("could not check that the key lives")
	}, says: []string{"could not check that the key lives", "the next try is"}},
	{name: "expired", enter: func(_ *testing.T, s *stage) {
		s.set("INJECTOR_CHECK_INTERVAL", "1s", "INJECTOR_TTL", "10s")
		p := s.startReady()
		s.server.SetDown(true)
		p.says("the key has expired")
	}, says: []string{"the key has expired", "could not extend the key", "the next try is"}, never: []string{"would last", "dead"}},
	{name: "crashed", live: 1, enter: func(_ *testing.T, s *stage) {
		p := s.startReady()
		p.signal(syscall.SIGKILL)
		p.wait(8 * time.Second)
	}, says: []string{"no injector is running here", "`injector run` (pid ", "was killed or crashed", "start it again: it adopts the key"}},
	{name: "handed over", live: 1, enter: func(_ *testing.T, s *stage) {
		p := s.startReady()
		p.signal(syscall.SIGQUIT)
		p.wait(8 * time.Second)
	}, says: []string{"no injector is running here", "has handed over to the next start", "start it again: it adopts the key"}},
	{name: "two injectors", live: 1, enter: func(_ *testing.T, s *stage) {
		s.startReady()
		s.set("INJECTOR_OUTPUT", filepath.Join(s.dir, "other-token"))
	}, says: []string{"the injector that uses this state directory keeps ", "and not ", "other-token", "an INJECTOR_STATE_DIR of its own"}},
}

// TestTwelveStates asks status, explain, healthcheck and the metrics in each state: they say the same.
func TestTwelveStates(t *testing.T) {
	for _, c := range situations {
		t.Run(strings.ReplaceAll(c.name, " ", "-"), func(t *testing.T) {
			t.Parallel()
			s := newStage(t, balenatest.Options{})
			address := freeAddress(t)
			s.set("INJECTOR_LISTEN", address)
			c.enter(t, s)
			wantOneTruth(t, s, c, address)
			s.eventually(fmt.Sprint(c.live, " live keys"), func() bool { s.server.Settle(); return len(s.server.Live()) == c.live })
		})
	}
}

func wantOneTruth(t *testing.T, s *stage, c situation, address string) {
	t.Helper()
	_, raw := s.do("status", "--json")
	var r probe.Report
	if err := json.Unmarshal([]byte(raw), &r); err != nil {
		t.Fatalf("%v: %s", err, raw)
	}
	statusCode, status := s.do("status")
	_, explained := s.do("explain")
	healthCode, health := s.do("healthcheck")
	t.Logf("%s\n$ injector status; exit %d\n%s$ injector explain\n%s$ injector healthcheck; exit %d\n%s", c.name, statusCode, status,
		explained, healthCode, health)

	if r.Ready != c.ready || (healthCode == 0) != c.ready || strings.Contains(explained, "Not ready: ") == c.ready {
		t.Errorf("ready: %v in the report, %d by healthcheck", r.Ready, healthCode)
	}
	if running := r.State == probe.Running; (statusCode == 0) != running {
		t.Errorf("status ends with %d in state %s", statusCode, r.State)
	}
	for name, text := range map[string]string{"status": status, "explain": explained, "healthcheck": health} {
		for _, part := range c.says {
			if !strings.Contains(text, part) {
				t.Errorf("%s does not say %q", name, part)
			}
		}
		for _, part := range c.never {
			if strings.Contains(text, part) {
				t.Errorf("%s says %q", name, part)
			}
		}
	}
	common := []string{r.Reason, r.Fix}
	for _, k := range r.Keys {
		if c.ready || r.State != probe.Running {
			for _, c := range k.Complaints(time.Now()) {
				common = append(common, c.Text, c.Fix)
			}
		}
	}
	for _, part := range common {
		for name, text := range map[string]string{"status": status, "explain": explained} {
			if !strings.Contains(timeless(text), timeless(part)) {
				t.Errorf("%s does not say %q", name, part)
			}
		}
	}
	if !strings.Contains(timeless(health), timeless(r.Line(time.Now()))) {
		t.Errorf("healthcheck says %q, and the report %q", health, r.Line(time.Now()))
	}
	if r.State == probe.Running {
		wantMetrics(t, r, address)
	}
}

// wantMetrics compares the metrics with a report.
func wantMetrics(t *testing.T, r probe.Report, address string) {
	t.Helper()
	_, text := get(t, "http://"+address+"/metrics")
	k := r.Keys[0]
	number := map[bool]string{true: "1", false: "0"}
	want := []string{"injector_ready " + number[r.Ready], "injector_credential_usable " + number[k.Credential == nil],
		fmt.Sprintf("injector_failing_steps %d", len(k.Trouble)), fmt.Sprintf("injector_live_keys %d", k.Live)}
	for _, line := range want {
		if !strings.Contains(text, "\n"+line+"\n") {
			t.Errorf("the metrics do not say %q", line)
		}
	}
	if shown := strings.Contains(text, "\ninjector_key_expiry_timestamp_seconds "); shown != (k.Key != nil && !k.Key.Dead) {
		t.Errorf("an expiry in the metrics: %v", shown)
	}
}

// passing is what changes between two questions: how long something takes yet, and how often it was tried.
var (
	passing = regexp.MustCompile(`(in )?\d+ (days|h|min|s)( \d+ (h|min|s))?|a moment|\bnow\b`)
	tries   = regexp.MustCompile(`, tried \d+ times since [^;]*`)
)

func timeless(text string) string {
	return strings.Join(strings.Fields(passing.ReplaceAllString(tries.ReplaceAllString(text, ""), "…")), " ")
}

// TestStatusFindsAnExec asks in an environment without anything of what exec was started with.
func TestStatusFindsAnExec(t *testing.T) {
	s := newExecStage(t)
	// As a user who has no other execs. The program has to be where that user can read it.
	if err := os.Chmod(s.dir, 0o755); err != nil {
		t.Fatal(err)
	}
	s.binary, s.user = filepath.Join(s.dir, "injector.test"), &syscall.Credential{Uid: 4324, Gid: 4324}
	copyFile(t, os.Args[0], s.binary)
	forget := func() {
		left, _ := filepath.Glob("/dev/shm/injector-4324-*")
		for _, dir := range left {
			_ = os.RemoveAll(dir)
		}
	}
	forget() // of tests that were killed
	t.Cleanup(forget)
	delete(s.env, "INJECTOR_STATE_DIR")
	s.set("TMPDIR", s.dir)
	p := s.start("exec", "--", "sleep", "60")
	s.eventually("an exec", func() bool {
		for name := range s.env {
			if name != become {
				delete(s.env, name)
			}
		}
		code, out := s.do("status")
		return code == 0 && strings.Contains(out, "exec, pid")
	})
	p.signal(syscall.SIGTERM)
	p.wait(8 * time.Second)
	s.wantLive(0)
}

// TestAJournalThatCannotBeRead lies beside a file with a live key: nobody says that nothing is left, check says what run
// will do, and run does it.
func TestAJournalThatCannotBeRead(t *testing.T) {
	t.Parallel()
	for _, text := range []string{`{"version":1,`, `{"version":9}`, ""} {
		s := newStage(t, balenatest.Options{})
		s.want(0, "init")
		writeText(t, filepath.Join(s.stateDir(), "journal.json"), text)
		for _, command := range []string{"status", "healthcheck"} {
			out := s.want(1, command)
			contains(t, out, "A journal cannot be read", "journal.json: ", "it sets the journal aside")
			if strings.Contains(out, "It has left no key") {
				t.Errorf("%s: %s", command, out)
			}
		}
		contains(t, s.want(0, "check"), "note a journal cannot be read", "journal.json")
		p := s.start("run")
		s.ready()
		p.signal(syscall.SIGTERM)
		p.wait(8 * time.Second)
		s.wantLive(1) // that of the lost journal, until its expiry
	}
}

// TestAHandoverIsShown asks for one and takes it back.
func TestAHandoverIsShown(t *testing.T) {
	t.Parallel()
	s := newStage(t, balenatest.Options{})
	p := s.startReady()
	s.want(0, "handover")
	contains(t, s.want(0, "status"), "next stop", "hands over, until")
	contains(t, s.want(0, "explain"), "leaves its keys to the next start")
	contains(t, s.want(0, "status", "--json"), "hands_over_until")
	s.want(0, "handover", "--undo")
	if out := s.want(0, "status"); strings.Contains(out, "hands over") {
		t.Errorf("%s", out)
	}
	p.freeze()
	contains(t, s.want(1, "handover"), "does not answer", "it may still do what it was asked for")
	p.signal(syscall.SIGCONT)
	s.want(0, "handover", "--undo")
	p.stop()
}

// TestAnotherFileInTheOutputsPlace is not taken for the key's.
func TestAnotherFileInTheOutputsPlace(t *testing.T) {
	t.Parallel()
	s := newStage(t, balenatest.Options{})
	s.want(0, "init")
	contains(t, s.want(1, "status"), "is there, and holds this key; apps can use it for 9 min")
	writeFile(t, s.token(), "0123456789abcdef0123456789abcdef")
	contains(t, s.want(1, "status"), "its .json names this key, but the token is not in it")
	s.want(0, "revoke")
	s.wantLive(0)
}
