package main

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/balena-injector/injector/balena/balenatest"
	"github.com/balena-injector/injector/internal/notify"
	"github.com/balena-injector/injector/internal/tally"
)

// newNotifyStage is a stage that checks its key every second, and extends it soon.
func newNotifyStage(t *testing.T) *stage {
	s := newStage(t, balenatest.Options{})
	s.set("INJECTOR_CHECK_INTERVAL", "1s", "INJECTOR_TTL", "10s", "INJECTOR_MAX_TTL", "1h", "PATH", os.Getenv("PATH"))
	return s
}

// rotate lets the key be replaced.
func (s *stage) rotate() {
	s.t.Helper()
	before := s.reads("balena-token")
	s.server.DeleteKey(s.server.Live()[0].ID)
	s.eventually("another key", func() bool { now := s.reads("balena-token"); return now != before && s.server.Accepts(now) })
}

func TestNotifyACommand(t *testing.T) {
	t.Parallel()
	s := newNotifyStage(t)
	record := filepath.Join(s.dir, "record")
	s.set(
		"INJECTOR_NOTIFY_COMMAND",
		`["sh","-c","env > `+record+`.new; cat $1 >> `+record+`.new; mv `+record+`.new `+record+`","sh","`+s.token()+`"]`,
	)
	p := s.start("run")
	s.ready()
	s.eventually("an extension", func() bool { return s.server.Count("extend") > 0 })
	if _, err := os.Stat(record); err == nil {
		t.Error("it was told of the first publication, or of an extension")
	}
	s.rotate()
	s.eventually("the command", func() bool { _, err := os.Stat(record); return err == nil })
	raw, _ := os.ReadFile(record)
	contains(t, string(raw), "TOKEN_GENERATION=2\n", "TOKEN_NAME=injector-", s.reads("balena-token"))
	wantNothingOfOurs(t, string(raw), s.env["BALENA_PASSWORD"])
	s.eventually("the log of it", func() bool { return strings.Contains(p.stderr.String(), "msg=notified") })
	p.stop()
}

func TestNotifyOfTheFirst(t *testing.T) {
	t.Parallel()
	s := newNotifyStage(t)
	record := filepath.Join(s.dir, "record")
	s.set("INJECTOR_NOTIFY_COMMAND", "touch "+record, "INJECTOR_NOTIFY_FIRST", "true")
	p := s.start("run")
	s.eventually("the command", func() bool { _, err := os.Stat(record); return err == nil })
	p.stop()
}

// TestACommandThatHangs is killed with all that it started, and delays nothing.
func TestACommandThatHangs(t *testing.T) {
	t.Parallel()
	s := newNotifyStage(t)
	pids := filepath.Join(s.dir, "pids")
	s.set(
		"INJECTOR_NOTIFY_COMMAND",
		`["sh","-c","sleep 60 & echo $! >> `+pids+`; wait"]`,
		"INJECTOR_NOTIFY_FIRST",
		"true",
		"INJECTOR_NOTIFY_TIMEOUT",
		"300ms",
	)
	p := s.start("run")
	s.ready()
	s.eventually("the first try's end", func() bool { return strings.Contains(p.stderr.String(), "took too long") })
	contains(t, s.want(0, "status"), "not notified", "command sh: it took too long")
	s.eventually("the death of what it had started", func() bool {
		raw, err := os.ReadFile("/proc/" + lines(pids)[0] + "/stat")
		return err != nil || strings.Contains(string(raw), ") Z ")
	})
	s.rotate() // nothing waits for it
	requests := s.server.Count("mint")
	s.eventually("more tries", func() bool { return len(lines(pids)) > 2 })
	if n := s.server.Count("mint"); n != requests {
		t.Errorf("its failures cost %d mints", n-requests)
	}
	p.stop()
}

func TestNotifyAProcess(t *testing.T) {
	t.Parallel()
	s := newNotifyStage(t)
	record := filepath.Join(s.dir, "record")
	// A consumer that rereads the file at a signal, with a child of the same name, as servers have. The child
	// answers another signal, which it gets after those that the injector sent.
	children := filepath.Join(s.dir, "children")
	app := filepath.Join(s.dir, "thermostatd")
	writeText(t, app, "#!/bin/sh\ntrap 'cat "+s.token()+" >> "+record+"; echo >> "+record+"' HUP\ntrap 'echo asked >> "+children+"' USR1\n"+
		"if [ \"$1\" = child ]; then echo $$ >> "+children+"; else "+app+" child & fi\nwhile :; do sleep 0.05; done\n")
	if err := os.Chmod(app, 0o755); err != nil {
		t.Fatal(err)
	}
	s.set("INJECTOR_NOTIFY_SIGNAL", "HUP:thermostatd")
	p := s.start("run")
	s.ready()
	cmd := exec.Command(app)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL); _ = cmd.Wait() }()
	s.eventually("parent and child, with their traps", func() bool { return len(lines(children)) == 1 })
	s.rotate()
	s.eventually("the signal", func() bool { return len(lines(record)) > 0 && strings.Contains(p.stderr.String(), "msg=notified") })
	child, err := strconv.Atoi(lines(children)[0])
	if err != nil || syscall.Kill(child, syscall.SIGUSR1) != nil {
		t.Fatal("the child", child, err)
	}
	s.eventually("the child's answer", func() bool { return len(lines(children)) == 2 })
	if got := lines(record); len(got) != 1 || !s.server.Accepts(got[0]) {
		t.Errorf("it read %d tokens", len(got))
	}
	p.stop()
}

func TestNotifyAProcessThatIsNotThere(t *testing.T) {
	target := &notify.Signal{Signal: syscall.SIGHUP, Process: "no-such-process"}
	if err := target.Tell(t.Context(), notify.Event{}); err == nil || !strings.Contains(err.Error(), "shared PID namespace") {
		t.Errorf("got %v", err)
	}
}

func TestNotifyOverHTTP(t *testing.T) {
	t.Parallel()
	s := newNotifyStage(t)
	var mu sync.Mutex
	var events []notify.Event
	var seen []string
	fail := 2
	consumer := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		body, _ := io.ReadAll(r.Body)
		if fail--; fail >= 0 {
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		var e notify.Event
		_ = json.Unmarshal(body, &e)
		events = append(events, e)
		seen = append(seen, r.Method+" "+r.URL.Path+" "+r.Header.Get("X-Token-Generation")+string(body), s.reads("balena-token"))
	}))
	defer consumer.Close()
	s.set("INJECTOR_NOTIFY_URL", "PUT "+strings.Replace(consumer.URL, "http://", "http://user:pass-word@", 1)+"/-/reload?hook=s3cr3t-hook")
	p := s.start("run")
	s.ready()
	s.rotate()
	s.eventually("the request", func() bool { mu.Lock(); defer mu.Unlock(); return len(events) > 0 })
	mu.Lock()
	if e := events[0]; e.Generation != 2 || !strings.HasPrefix(e.Name, "injector-") || time.Until(e.Expiry) < time.Second {
		t.Errorf("event %+v", e)
	}
	contains(t, seen[0], "PUT /-/reload 2")
	if strings.Contains(seen[0], seen[1]) {
		t.Error("the request holds the token")
	}
	mu.Unlock()
	contains(t, p.stderr.String(), "could not notify", "503")
	if strings.Contains(p.stderr.String(), "pass-word") || strings.Contains(p.stderr.String(), "s3cr3t-hook") {
		t.Error("the log shows what is secret in the URL")
	}
	p.stop()
}

// TestHangup makes a template be read again and a key be extended now.
func TestHangup(t *testing.T) {
	t.Parallel()
	s := newStage(t, balenatest.Options{})
	p := s.start("run")
	s.ready()
	s.eventually("the id", func() bool { return s.server.Count("find") > 0 })
	token := s.reads("balena-token")
	p.signal(syscall.SIGHUP)
	s.eventually("an extension", func() bool { return s.server.Count("extend") == 1 })
	if s.reads("balena-token") != token {
		t.Error("the key was replaced, and extending it was enough")
	}
	p.stop()
}

// TestHangupRotates has a key that must not get older.
func TestHangupRotates(t *testing.T) {
	t.Parallel()
	s := newStage(t, balenatest.Options{})
	s.set("INJECTOR_MAX_TTL", "10m")
	p := s.start("run")
	s.ready()
	token := s.reads("balena-token")
	time.Sleep(time.Second) // an age of more than nothing
	p.signal(syscall.SIGHUP)
	s.eventually("another key", func() bool { return s.reads("balena-token") != token })
	s.ready()
	p.stop()
}

func writeText(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

// TestATemplateThatBreaks keeps the old files, and takes the mended template without another key.
func TestATemplateThatBreaks(t *testing.T) {
	t.Parallel()
	s := newStage(t, balenatest.Options{})
	template, output := filepath.Join(s.dir, "app.tmpl"), filepath.Join(s.dir, "app.conf")
	writeText(t, template, "token={{.Token}}\n")
	s.set("INJECTOR_TEMPLATES", template+":"+output+":0400", "INJECTOR_OUTPUT", s.token())
	p := s.start("run")
	s.ready()
	token := s.reads("balena-token")
	if got := s.reads("app.conf"); got != "token="+token+"\n" {
		t.Errorf("got %q", got)
	}
	if info, err := os.Stat(output); err != nil || info.Mode() != 0o400 {
		t.Errorf("%v, %v", info, err)
	}
	writeText(t, template, "first line\ntoken={{.Tokn}}\n")
	s.eventually("the complaint", func() bool { return strings.Contains(p.stderr.String(), "app.tmpl:2:8:") })
	code, out := s.do("healthcheck")
	if code != 1 {
		t.Errorf("healthcheck: exit %d", code)
	}
	contains(t, out, template+":2:8:", "Tokn")
	if s.reads("app.conf") != "token="+token+"\n" || s.reads("balena-token") != token {
		t.Error("an output has changed")
	}
	s.eventually("tries that are far apart",
		func() bool { return strings.Count(p.stderr.String(), "could not write the outputs again") > 3 })
	mended := time.Now()
	writeText(t, template, "TOKEN={{.Token}}\n")
	s.eventually("the mended template", func() bool { return s.reads("app.conf") == "TOKEN="+token+"\n" })
	if took := time.Since(mended); took > tally.Slow(3*time.Second) {
		t.Errorf("it took %v", took)
	}
	s.ready()
	if regexp.MustCompile(`written again:[^\n]*Tokn`).MatchString(p.stderr.String()) {
		t.Error("the repair is said with the error of the template before")
	}
	// One that cannot even be parsed is not a reason to end, or to ask somebody else.
	writeText(t, template, "{{.Token")
	s.eventually("the complaint", func() bool {
		code, out := s.do("healthcheck")
		return code == 1 && strings.Contains(out, template+":1:")
	})
	s.want(0, "healthcheck", "--live")
	contains(t, s.want(0, "status"), template+":1:")
	p.signal(syscall.SIGKILL)
	p.wait(time.Second)
	s.wantLive(1)
	s.want(0, "revoke")
	s.wantLive(0)
	writeText(t, template, "TOKEN={{.Token}}\n")
	p = s.start("run")
	s.ready()
	if n := s.server.Count("mint"); n != 2 {
		t.Errorf("%d mints", n)
	}
	p.stop()
	if _, err := os.Stat(output); err == nil {
		t.Error("the rendered file is left")
	}
}

func TestMistakesWithTemplates(t *testing.T) {
	s := newStage(t, balenatest.Options{})
	broken := filepath.Join(s.dir, "broken.tmpl")
	writeText(t, broken, "{{.Token")
	wrong := filepath.Join(s.dir, "wrong.tmpl")
	writeText(t, wrong, "a\nb\n{{.Nothing}}")
	for _, c := range []struct {
		code int
		set  []string
		says []string
	}{
		{2, []string{"INJECTOR_TEMPLATES", "dotenv"}, []string{"INJECTOR_TEMPLATES", "SOURCE:DESTINATION"}},
		{2, []string{"INJECTOR_TEMPLATES", "dotnev:/secrets/x"}, []string{"INJECTOR_TEMPLATES", "did you mean dotenv?"}},
		{2, []string{"INJECTOR_TEMPLATES", "dotenv:secrets/x"}, []string{"INJECTOR_TEMPLATES", "absolute"}},
		{2, []string{"INJECTOR_TEMPLATES", "dotenv:/secrets/x:rw"}, []string{"INJECTOR_TEMPLATES", "octal"}},
		{2, []string{"INJECTOR_TEMPLATES", "/no/such.tmpl:/secrets/x"}, []string{"INJECTOR_TEMPLATES", "/no/such.tmpl", "no such file"}},
		{2, []string{"INJECTOR_TEMPLATES", broken + ":/secrets/x"}, []string{broken + ":1:"}},
		{1, []string{"INJECTOR_TEMPLATES", wrong + ":" + filepath.Join(s.dir, "x")}, []string{wrong + ":3:2:", "Nothing"}},
		{2, []string{"INJECTOR_TEMPLATES", "raw:" + s.token()}, []string{s.token() + " twice"}},
		{2, []string{"INJECTOR_TEMPLATES", "json:" + s.token() + ".json"}, []string{"twice", "PATH.json"}},
		{2, []string{"INJECTOR_TEMPLATE_FILES", s.dir}, []string{"INJECTOR_TEMPLATE_FILES", ".injector can be read"}},
		{2, []string{"INJECTOR_TEMPLATE_FILES", "/proc"}, []string{"INJECTOR_TEMPLATE_FILES", "environ can be read"}},
		{2, []string{"INJECTOR_TEMPLATE_ENV", "BALENA_PASSWORD"}, []string{"INJECTOR_TEMPLATE_ENV", "the injector's own"}},
		{2, []string{"INJECTOR_OUTPUT", "none"}, []string{"INJECTOR_OUTPUT", "no templates"}},
		{2, []string{"INJECTOR_NOTIFY_SIGNAL", "nginx"}, []string{"INJECTOR_NOTIFY_SIGNAL", "HUP:nginx"}},
		{2, []string{"INJECTOR_NOTIFY_URL", "localhost/x"}, []string{"INJECTOR_NOTIFY_URL"}},
		{2, []string{"INJECTOR_NOTIFY_COMMAND", "[nginx"}, []string{"INJECTOR_NOTIFY_COMMAND", "JSON"}},
		{2, []string{"INJECTOR_ON_ROTATION", "reload"}, []string{"INJECTOR_ON_ROTATION", "restart"}},
	} {
		old := map[string]string{}
		for i := 0; i < len(c.set); i += 2 {
			old[c.set[i]] = s.env[c.set[i]]
			s.set(c.set[i], c.set[i+1])
		}
		contains(t, s.want(c.code, "init"), c.says...)
		for name, value := range old {
			s.set(name, value)
		}
	}
	if n := s.server.Count("mint"); n != 0 {
		t.Errorf("%d mints", n)
	}
}

// TestNotificationsOnlyOfTheNewest has a consumer that is down during three rotations.
func TestNotificationsOnlyOfTheNewest(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	var got []int
	down := true
	consumer := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		if down {
			w.WriteHeader(500)
			return
		}
		var e notify.Event
		_ = json.NewDecoder(r.Body).Decode(&e)
		got = append(got, e.Generation)
	}))
	defer consumer.Close()
	s := newNotifyStage(t)
	// A key of that age is replaced at a SIGHUP, and the old one is gone in a second.
	s.set("INJECTOR_NOTIFY_URL", consumer.URL, "INJECTOR_TTL", "10m", "INJECTOR_MAX_TTL", "10m", "INJECTOR_OVERLAP", "1s")
	p := s.start("run")
	s.ready()
	replace := func() {
		before := s.reads("balena-token")
		p.signal(syscall.SIGHUP)
		s.eventually("another key", func() bool { now := s.reads("balena-token"); return now != before && s.server.Accepts(now) })
		s.eventually("the end of the old one", func() bool { return len(s.server.Live()) == 1 })
	}
	time.Sleep(time.Second) // an age of more than nothing
	replace()
	s.eventually("a failure", func() bool { return strings.Contains(p.stderr.String(), "could not notify") })
	replace()
	mu.Lock()
	down = false
	mu.Unlock()
	s.eventually("the newest", func() bool { mu.Lock(); defer mu.Unlock(); return len(got) > 0 })
	replace()
	s.eventually("the next", func() bool { mu.Lock(); defer mu.Unlock(); return slices.Contains(got, 4) })
	mu.Lock()
	if !slices.Equal(got, []int{3, 4}) { // and no other
		t.Errorf("told of %v", got)
	}
	mu.Unlock()
	p.stop()
}

// TestANotificationOutlivesACrash has a hook that fails until the injector is killed, long after the
// overlap.
func TestANotificationOutlivesACrash(t *testing.T) {
	t.Parallel()
	s := newNotifyStage(t)
	works, record := filepath.Join(s.dir, "works"), filepath.Join(s.dir, "record")
	s.set("INJECTOR_NOTIFY_COMMAND", `["sh","-c","test -e `+works+` && echo $TOKEN_GENERATION >> `+record+`"]`, "INJECTOR_OVERLAP", "1s")
	p := s.start("run")
	s.ready()
	s.rotate()
	s.eventually("a failure", func() bool { return strings.Contains(p.stderr.String(), "could not notify") })
	s.eventually("the end of the overlap", func() bool { return len(s.server.All()) == 1 })
	p.signal(syscall.SIGKILL)
	p.wait(time.Second)
	writeText(t, works, "")
	p = s.start("run")
	s.eventually("the notification", func() bool { return strings.Join(lines(record), " ") == "2" })
	s.ready()
	s.eventually("the record of it", func() bool {
		raw, _ := os.ReadFile(filepath.Join(s.stateDir(), "journal.json"))
		return strings.Contains(string(raw), `"told": 2`)
	})
	p.signal(syscall.SIGQUIT)
	p.wait(5 * time.Second)
	p = s.start("run") // and it is told once
	s.ready()
	s.rotate()
	s.eventually("the next", func() bool { return strings.HasSuffix(strings.Join(lines(record), " "), "3") })
	if got := strings.Join(lines(record), " "); got != "2 3" {
		t.Errorf("told of %s", got)
	}
	p.stop()
}

// TestHangupReplacesWhatCannotBeExtended has a key that the server does not list.
func TestHangupReplacesWhatCannotBeExtended(t *testing.T) {
	t.Parallel()
	s := newStage(t, balenatest.Options{})
	s.set("INJECTOR_KIND", "fleet", "INJECTOR_TARGET", s.server.DefaultFleet().Slug)
	p := s.start("run")
	s.ready()
	s.eventually("that it is not listed", func() bool { return strings.Contains(p.stderr.String(), "does not list this key") })
	token := s.reads("balena-token")
	found := s.server.Count("find")
	p.signal(syscall.SIGHUP) // finds out that it cannot be extended
	s.eventually("a look", func() bool { return s.server.Count("find") > found })
	p.signal(syscall.SIGHUP)
	s.eventually("another key", func() bool { now := s.reads("balena-token"); return now != token && s.server.Accepts(now) })
	p.signal(syscall.SIGTERM)
	p.wait(8 * time.Second)
	s.wantNoFile()
}
