package config

import (
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestExecNeedsNoFile as its command has the token in a variable. It may have files beside that.
func TestExecNeedsNoFile(t *testing.T) {
	exec := Options{Supervising: true}
	for _, set := range [][]string{nil, {"INJECTOR_OUTPUT=none"}} {
		k := accepted(t, with(set...), exec).Keys[0]
		if len(k.Outputs) != 0 || !slices.Equal(k.Variables, []string{"BALENA_TOKEN"}) {
			t.Errorf("%q: %+v", set, k)
		}
	}
	token := filepath.Join(t.TempDir(), "token")
	if s := accepted(t, with("INJECTOR_OUTPUT="+token), exec); !slices.Equal(s.Keys[0].Paths(), []string{token}) {
		t.Errorf("outputs are %q", s.Keys[0].Paths())
	}
	s := accepted(t, with("INJECTOR_KEYS=a,b2", "INJECTOR_B2_TOKEN_VARIABLES=ONE, _two3"), exec)
	for i, want := range [][]string{{"BALENA_TOKEN_A"}, {"ONE", "_two3"}} {
		if got := s.Keys[i].Variables; !slices.Equal(got, want) {
			t.Errorf("tokens are in %q, not %q", got, want)
		}
	}
}

// TestNoTokenInAVariableThatMeansMore to the injector, a system, a shell or a library.
func TestNoTokenInAVariableThatMeansMore(t *testing.T) {
	for _, name := range []string{"PATH", "Path", "HOME", "LD_PRELOAD", "ld_library_path", "PYTHONPATH", "SSL_CERT_FILE", "HTTPS_PROXY",
		"no_proxy", "GODEBUG", "NODE_OPTIONS", "BALENA_API_URL", "INJECTOR_TTL", "BALENA_PASSWORD", "BALENA_USERNAME"} {
		wantRefused(t, with("INJECTOR_TOKEN_VARIABLES=TOKEN,"+name), Options{Supervising: true},
			"INJECTOR_TOKEN_VARIABLES names "+name+", which has a meaning of its own")
	}
	for text, says := range map[string]string{
		"TOKEN,1ST":         "has an entry 2 that is not a variable's name",
		"MY-TOKEN":          "has an entry 1 that is not a variable's name",
		"A=B":               "has an entry 1 that is not a variable's name",
		" , ":               "names none",
		"TOKEN,OTHER,TOKEN": "names TOKEN a second time",
	} {
		wantRefused(t, with("INJECTOR_TOKEN_VARIABLES="+text), Options{Supervising: true}, "INJECTOR_TOKEN_VARIABLES "+says)
	}
	wantRefused(t, with("INJECTOR_KEYS=a,b", "INJECTOR_A_TOKEN_VARIABLES=T", "INJECTOR_B_TOKEN_VARIABLES=T"), Options{Supervising: true},
		"INJECTOR_B_TOKEN_VARIABLES names T a second time: name it once, and for one key")
}

// TestARotationRestartsTheCommand or sends it a signal, or nothing.
func TestARotationRestartsTheCommand(t *testing.T) {
	for text, want := range map[string]struct {
		restart bool
		signal  syscall.Signal
	}{
		"":        {restart: true},
		"restart": {restart: true},
		"none":    {},
		"HUP":     {signal: syscall.SIGHUP},
		"sigusr2": {signal: syscall.SIGUSR2},
	} {
		s := accepted(t, with("INJECTOR_ON_ROTATION="+text), Options{Supervising: true})
		if s.RestartChild != want.restart || s.SignalChild != want.signal {
			t.Errorf("%q: restart %v, signal %v", text, s.RestartChild, s.SignalChild)
		}
	}
	for _, text := range []string{"reload", "1", "SIGSIGHUP", "Restart now"} {
		wantRefused(t, with("INJECTOR_ON_ROTATION="+text), Options{}, "INJECTOR_ON_ROTATION is neither restart nor none nor a signal")
	}
}

// TestExecKeepsTimeToRevoke after the command has ended, and needs no delay.
func TestExecKeepsTimeToRevoke(t *testing.T) {
	exec := Options{Supervising: true}
	wantRefused(t, with("INJECTOR_KILL_AFTER=7s"), exec,
		"INJECTOR_KILL_AFTER leaves no time to revoke before INJECTOR_SHUTDOWN_TIMEOUT (7s): raise the timeout")
	accepted(t, with("INJECTOR_KILL_AFTER=6999ms"), exec)
	accepted(t, with("INJECTOR_KILL_AFTER=7s"), Options{}) // there is nothing to kill
	for o, want := range map[Options]time.Duration{exec: 0, {}: 2 * time.Second} {
		s := accepted(t, with("INJECTOR_SHUTDOWN_DELAY=2s"), o)
		warned := strings.Contains(strings.Join(s.Warnings, ""), "INJECTOR_SHUTDOWN_DELAY is not used by exec")
		if s.ShutdownDelay != want || warned != o.Supervising {
			t.Errorf("%+v: a delay of %v, and it warns %q", o, s.ShutdownDelay, s.Warnings)
		}
	}
	for delay, good := range map[string]bool{"0s": true, "6s": true, "7s": false, "8s": false} {
		if good {
			accepted(t, with("INJECTOR_SHUTDOWN_DELAY="+delay), Options{})
		} else {
			wantRefused(t, with("INJECTOR_SHUTDOWN_DELAY="+delay), Options{}, "INJECTOR_SHUTDOWN_DELAY leaves no time to revoke")
		}
	}
}

// TestCommandsAreWords with blanks between them, or a JSON list of them. There is no shell, and what looks like a line
// for one is refused.
func TestCommandsAreWords(t *testing.T) {
	for text, want := range map[string][]string{
		"sh  -c\ttrue":           {"sh", "-c", "true"},
		`["sh","-c","a 'b' $c"]`: {"sh", "-c", "a 'b' $c"},
		"/bin/sh":                {"/bin/sh"},
		"sh a~b":                 {"sh", "a~b"},
	} {
		text = strings.ReplaceAll(text, "\t", " ")
		if s := accepted(t, with("PATH=/usr/bin:/bin", "INJECTOR_NOTIFY_COMMAND="+text),
			Options{}); !slices.Equal(s.Keys[0].Notify.Command, want) {
			t.Errorf("%s is %q", text, s.Keys[0].Notify.Command)
		}
	}
	for _, text := range []string{`[]`, `["",""]`, `["sh"`, `["sh",1]`, `[{}]`} {
		wantRefused(t, with("INJECTOR_NOTIFY_COMMAND="+text), Options{}, "begins like a JSON list, and is not one of words")
	}
	for _, text := range []string{"sh 'a'", "sh $a", "sh >a", "sh `a`", "sh a|b", "sh a;b", "sh a*", `sh a\b`, "~/sh", "sh (a)", "sh {a}"} {
		wantRefused(t, with("INJECTOR_NOTIFY_COMMAND="+text), Options{}, "there is no shell")
	}
	missing := with("INJECTOR_NOTIFY_COMMAND=no-such-program-S3cret --x")
	wantRefused(t, missing, Options{}, "names a program that cannot be run: executable file not found")
	accepted(t, missing, Options{WithoutFiles: true}) // it may be in another container
}

// TestWhoIsNotified by a signal or a request, as far as that can be one.
func TestWhoIsNotified(t *testing.T) {
	for text, want := range map[string]Notify{
		"HUP:nginx":      {Signal: syscall.SIGHUP, Process: "nginx"},
		"sigterm:a:b":    {Signal: syscall.SIGTERM, Process: "a:b"},
		"USR1:my daemon": {Signal: syscall.SIGUSR1, Process: "my daemon"},
	} {
		n := accepted(t, with("INJECTOR_NOTIFY_SIGNAL="+text), Options{}).Keys[0].Notify
		if n.Signal != want.Signal || n.Process != want.Process {
			t.Errorf("%q is %+v", text, n)
		}
	}
	for _, text := range []string{"HUP", "HUP:", "nginx:HUP", ":nginx", "HUP:/usr/sbin/nginx"} {
		wantRefused(t, with("INJECTOR_NOTIFY_SIGNAL="+text), Options{}, "INJECTOR_NOTIFY_SIGNAL is not a signal and a process")
	}
	for text, want := range map[string]Notify{
		"http://localhost:80/x":         {Method: "POST", URL: "http://localhost:80/x"},
		"GET  https://example.org/?a=b": {Method: "GET", URL: "https://example.org/?a=b"},
	} {
		n := accepted(t, with("INJECTOR_NOTIFY_URL="+text), Options{}).Keys[0].Notify
		if n.Method != want.Method || n.URL != want.URL {
			t.Errorf("%q is %+v", text, n)
		}
	}
	for _, text := range []string{"localhost:80", "ftp://x/", "get http://x/", "http://", "/reload", "GET", "http://x/ GET"} {
		wantRefused(t, with("INJECTOR_NOTIFY_URL="+text), Options{}, "INJECTOR_NOTIFY_URL is not a request")
	}
}
