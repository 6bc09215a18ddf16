package config

import (
	"encoding/pem"
	"errors"
	"log/slog"
	"net/http/httptest"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/balena-injector/injector/balena"
	"github.com/balena-injector/injector/balena/balenatest"
	"github.com/balena-injector/injector/key"
	"github.com/balena-injector/injector/render"
)

// with is an environment with a login, and before that the entries.
func with(entries ...string) Environ {
	return NewEnviron(slices.Concat(entries, []string{"BALENA_USERNAME=Injector", "BALENA_PASSWORD=correct horse battery"}))
}

// accepted reads an environment in which nothing is wrong.
func accepted(t *testing.T, env Environ, o Options) Settings {
	t.Helper()
	s, err := Read(env, o)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// wantRefused reads an environment in which one thing is wrong, and looks for all parts in what is said of it.
func wantRefused(t *testing.T, env Environ, o Options, parts ...string) {
	t.Helper()
	_, err := Read(env, o)
	problems, ok := errors.AsType[Problems](err)
	if !ok || len(problems) != 1 {
		t.Errorf("not one problem: %v", err)
		return
	}
	for _, part := range parts {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("%q is not in: %v", part, err)
		}
	}
}

// plain is what can be compared of a configuration.
func plain(s Settings) Settings {
	s.Environ, s.Accounts, s.Functions.Lookup = Environ{}, nil, nil
	s.Keys = slices.Clone(s.Keys)
	for i := range s.Keys {
		s.Keys[i].Account = nil
		s.Keys[i].Notify.Command = append([]string(nil), s.Keys[i].Notify.Command...) // an empty list is none
		s.Keys[i].Outputs = slices.Clone(s.Keys[i].Outputs)
		for j := range s.Keys[i].Outputs {
			s.Keys[i].Outputs[j].Template = nil
		}
	}
	return s
}

// TestDefaults are what a login alone gives.
func TestDefaults(t *testing.T) {
	s := accepted(t, with(), Options{Version: "1.2.3"})
	want := Settings{
		API: balena.Config{
			URL:       "https://api.balena-cloud.com",
			UserAgent: "balena-token-injector/1.2.3",
		},
		Keys: []Key{{
			CanRotate: true,
			Kind:      key.User,
			Prefix:    "injector",
			Times: Times{
				TTL:     time.Hour,
				MaxTTL:  24 * time.Hour,
				Overlap: time.Minute,
				Check:   5 * time.Minute,
			},
			Outputs: []render.Output{{
				Path:  "/secrets/balena-token",
				Mode:  0o440,
				Owner: render.Keep,
			}},
			Variables: []string{"BALENA_TOKEN"},
			Notify:    Notify{Timeout: 10 * time.Second},
		}},
		StateDir:        "/secrets/.injector",
		InitTimeout:     2 * time.Minute,
		ShutdownTimeout: 7 * time.Second,
		PerMinute:       300,
		KillAfter:       3 * time.Second,
		RestartChild:    true,
		LogLevel:        slog.LevelInfo,
	}
	if got := plain(s); !reflect.DeepEqual(got, want) {
		t.Errorf("it is\n%+v, not\n%+v", got, want)
	}
	if s.Several() {
		t.Error("there are several keys")
	}
	a := s.Keys[0].Account
	if len(s.Accounts) != 1 || s.Accounts[0] != a || a.Key != "" || a.Login != "injector" || a.Credentials.Username != "Injector" {
		t.Errorf("the account is %+v", a)
	}
	if secret, err := a.Credentials.Password(); err != nil || secret.Reveal() != "correct horse battery" {
		t.Errorf("the password is another one: %v", err)
	}
	if s.Environ.Get("BALENA_USERNAME") != "Injector" {
		t.Error("what it was read from is not kept")
	}
}

// TestDefaultsAreWhatTheReferenceSays as written into each variable they change nothing. Nor do empty variables, such as
// Compose's ${NAME:-} leaves, and blanks around a value.
func TestDefaultsAreWhatTheReferenceSays(t *testing.T) {
	for _, supervising := range []bool{false, true} {
		o := Options{Supervising: supervising}
		want := plain(accepted(t, with(), o))
		var all, empty []string
		for _, v := range Variables() {
			if v.Default != "" {
				all = append(all, v.Name+"= "+v.Default+"\t")
			}
			for _, name := range v.Names() {
				given := []string{"BALENA_USERNAME", "INJECTOR_USERNAME", "BALENA_PASSWORD", "INJECTOR_PASSWORD"}
				if !slices.Contains(given, name) {
					empty = append(empty, name+"=")
				}
			}
		}
		for what, entries := range map[string][]string{
			"written out": all,
			"empty":       empty,
			"blank":       {"INJECTOR_TTL=  ", "INJECTOR_OUTPUT= "},
		} {
			if got := plain(accepted(t, with(entries...), o)); !reflect.DeepEqual(got, want) {
				t.Errorf("%s, it is\n%+v, not\n%+v", what, got, want)
			}
		}
	}
}

// TestEverySettingIsRead into what it means.
func TestEverySettingIsRead(t *testing.T) {
	dir := t.TempDir()
	at := func(name string) string { return filepath.Join(dir, name) }
	tls := httptest.NewTLSServer(nil)
	defer tls.Close()
	cert := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: tls.Certificate().Raw})
	if err := errors.Join(os.WriteFile(at("ca.pem"), cert, 0o600), os.Mkdir(at("parts"), 0o700)); err != nil {
		t.Fatal(err)
	}
	s := accepted(t, with(
		"BALENA_API_URL=http://api.example.org/",
		"INJECTOR_ALLOW_HTTP=true",
		"INJECTOR_CA_FILE="+at("ca.pem"),
		"INJECTOR_STATE_DIR="+at("x/../state"),
		"INJECTOR_SESSION_CACHE="+at("cache/session"),
		"INJECTOR_REQUIRE_TMPFS=false",
		"INJECTOR_TEMPLATE_FILES="+at("parts"),
		"INJECTOR_TEMPLATE_ENV=HOME, LANG",
		"INJECTOR_ON_ROTATION=hup",
		"INJECTOR_KILL_AFTER=1s",
		"INJECTOR_REQUESTS_PER_MINUTE=60",
		"INJECTOR_INIT_TIMEOUT=5m",
		"INJECTOR_SHUTDOWN_DELAY=2s",
		"INJECTOR_SHUTDOWN_TIMEOUT=20s",
		"INJECTOR_REVOKE_ON_EXIT=false",
		"INJECTOR_LISTEN=127.0.0.1:9300",
		"INJECTOR_LOG_LEVEL=debug",
		"INJECTOR_LOG_FORMAT=JSON",
		"INJECTOR_KIND=fleet",
		"INJECTOR_TARGET=Org/Fleet",
		"INJECTOR_NAME=ours",
		"INJECTOR_DESCRIPTION=for the gateway",
		"INJECTOR_TTL=2h",
		"INJECTOR_MAX_TTL=7d",
		"INJECTOR_OVERLAP=30m",
		"INJECTOR_CHECK_INTERVAL=90s",
		"INJECTOR_OUTPUT="+at("out/token"),
		"INJECTOR_OUTPUT_MODE=400",
		"INJECTOR_OUTPUT_OWNER=:1000",
		"INJECTOR_TEMPLATES=dotenv:"+at("out/app.env")+":0444,netrc:"+at("out/netrc"),
		"INJECTOR_TOKEN_VARIABLES=TOKEN,MY_TOKEN",
		"PATH=/usr/bin:/bin",
		`INJECTOR_NOTIFY_COMMAND=["sh","-c","echo $1"]`,
		"INJECTOR_NOTIFY_SIGNAL=SIGUSR1:nginx",
		"INJECTOR_NOTIFY_URL=PUT http://localhost:9090/-/reload",
		"INJECTOR_NOTIFY_TIMEOUT=1s",
		"INJECTOR_NOTIFY_FIRST=true",
	), Options{})
	defer func() { _ = s.Functions.Files.Close() }()
	target, err := balena.ParseTarget(key.Fleet, "org/fleet")
	if err != nil {
		t.Fatal(err)
	}
	owner := render.Owner{UID: -1, GID: 1000}
	want := Settings{
		API: balena.Config{
			URL:       "http://api.example.org",
			UserAgent: "balena-token-injector/",
			AllowHTTP: true,
			CAs:       cert,
		},
		Keys: []Key{{
			CanRotate:   true,
			Kind:        key.Fleet,
			Target:      target,
			Prefix:      "ours",
			Description: "for the gateway",
			Times: Times{
				TTL:     2 * time.Hour,
				MaxTTL:  7 * 24 * time.Hour,
				Overlap: 30 * time.Minute,
				Check:   90 * time.Second,
			},
			Outputs: []render.Output{
				{Path: at("out/token"), Mode: 0o400, Owner: owner},
				{Path: at("out/app.env"), Mode: 0o444, Owner: owner},
				{Path: at("out/netrc"), Mode: 0o400, Owner: owner},
			},
			Variables: []string{"TOKEN", "MY_TOKEN"},
			Notify: Notify{
				Command: []string{"sh", "-c", "echo $1"},
				Signal:  syscall.SIGUSR1,
				Process: "nginx",
				Method:  "PUT",
				URL:     "http://localhost:9090/-/reload",
				Timeout: time.Second,
				First:   true,
			},
		}},
		OnDisk:          true,
		StateDir:        at("state"),
		SessionCache:    at("cache/session"),
		InitTimeout:     5 * time.Minute,
		ShutdownDelay:   2 * time.Second,
		ShutdownTimeout: 20 * time.Second,
		KeepOnExit:      true,
		PerMinute:       60,
		KillAfter:       time.Second,
		SignalChild:     syscall.SIGHUP,
		Listen:          "127.0.0.1:9300",
		LogLevel:        slog.LevelDebug,
		LogJSON:         true,
	}
	got := plain(s)
	if f := got.Functions; f.Files == nil || f.Files.Path() != at("parts") || !slices.Equal(f.Env, []string{"HOME", "LANG"}) {
		t.Errorf("templates may reach %+v", f)
	}
	got.Functions = render.Functions{}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("it is\n%+v, not\n%+v", got, want)
	}
	if value, set := s.Functions.Lookup("BALENA_USERNAME"); value != "Injector" || !set {
		t.Errorf("templates look up %q in another environment", value)
	}
	if got := s.Keys[0].Paths(); !slices.Equal(got, []string{at("out/token"), at("out/app.env"), at("out/netrc")}) {
		t.Errorf("its paths are %q", got)
	}
}

// TestTimesFollowFromEachOther where they are not set, and from what the credential can do.
func TestTimesFollowFromEachOther(t *testing.T) {
	const day = 24 * time.Hour
	server := balenatest.New(balenatest.Options{}) // which nobody starts: it only signs sessions
	session := []string{"BALENA_USERNAME=", "BALENA_PASSWORD=", "BALENA_SESSION_TOKEN=" + server.Session(server.DefaultUser(), 0)}
	fleet := append([]string{"INJECTOR_KIND=fleet", "INJECTOR_TARGET=7"}, session...)
	for name, c := range map[string]struct {
		set             []string
		overlap, maxTTL time.Duration
		fixed           bool // it cannot mint another one later
	}{
		"a long life":           {[]string{"INJECTOR_TTL=48h"}, time.Minute, 48 * time.Hour, false},
		"a short one":           {[]string{"INJECTOR_TTL=3m"}, 30 * time.Second, day, false},
		"no overlap":            {[]string{"INJECTOR_OVERLAP=0"}, 0, day, false},
		"never replaced":        {[]string{"INJECTOR_MAX_TTL=0"}, time.Minute, 0, false},
		"a quarter of overlap":  {[]string{"INJECTOR_OVERLAP=15m"}, 15 * time.Minute, day, false},
		"as old as its TTL":     {[]string{"INJECTOR_MAX_TTL=1h"}, time.Minute, time.Hour, false},
		"a session":             {session, time.Minute, 0, true},
		"a session, and fleets": {fleet, time.Minute, day, false},
	} {
		s := accepted(t, with(c.set...), Options{})
		if k := s.Keys[0]; k.Times.Overlap != c.overlap || k.Times.MaxTTL != c.maxTTL || k.CanRotate == c.fixed {
			t.Errorf("%s: %+v, can rotate: %v", name, k.Times, k.CanRotate)
		}
	}
	for ttl, warns := range map[string]bool{"59s": true, "1m": false} {
		s := accepted(t, with("INJECTOR_TTL="+ttl), Options{})
		if got := strings.Join(s.Warnings, ""); strings.Contains(got, "INJECTOR_TTL="+ttl+" is for trying it out") != warns {
			t.Errorf("%s: it warns %q", ttl, got)
		}
	}
}

// TestDurationsMayHaveDays before Go's own units. What they may not be is said with what they may.
func TestDurationsMayHaveDays(t *testing.T) {
	const day = 24 * time.Hour
	for text, want := range map[string]time.Duration{
		"90s":    90 * time.Second,
		"1h30m":  90 * time.Minute,
		"7d":     7 * day,
		"1d12h":  36 * time.Hour,
		"365d":   365 * day,
		"8760h":  365 * day,
		"0d1s":   time.Second,
		"1s":     time.Second,
		"1000ms": time.Second,
	} {
		if s := accepted(t, with("INJECTOR_INIT_TIMEOUT="+text), Options{}); s.InitTimeout != want {
			t.Errorf("%s is %v, not %v", text, s.InitTimeout, want)
		}
	}
	for _, text := range []string{"1", "d", "1w", "1.5d", "1.5d3h", "-1d", "1h1d", "1d1", "65536d", "99999999999999h", "soon"} {
		wantRefused(t, with("INJECTOR_INIT_TIMEOUT="+text), Options{}, "INJECTOR_INIT_TIMEOUT is not a duration", "1h or 7d")
	}
	for text, is := range map[string]string{"999ms": "999ms", "0": "0s", "-1s": "-1s", "365d1s": "8760h0m1s", "366d": "8784h"} {
		wantRefused(t, with("INJECTOR_INIT_TIMEOUT="+text), Options{}, "INJECTOR_INIT_TIMEOUT is "+is+": give 1s to 365d")
	}
}

// TestProblemsAreAllListed each on a line, once.
func TestProblemsAreAllListed(t *testing.T) {
	one := Problems{{"A", "is wrong", "mend it"}}
	if got, want := one.Error(), "1 configuration problem:\n  A is wrong: mend it"; got != want {
		t.Errorf("one is %q, not %q", got, want)
	}
	two := append(one, Problem{"B", "is missing", ""})
	if got, want := two.Error(), "2 configuration problems:\n  A is wrong: mend it\n  B is missing"; got != want {
		t.Errorf("two are %q, not %q", got, want)
	}
	s, err := Read(with("INJECTOR_TTL=x", "INJECTOR_LISTEN=x", "INJECTOR_SHUTDOWN_TIMEOUT=9s"), Options{})
	if problems, ok := errors.AsType[Problems](err); !ok || len(problems) != 2 {
		t.Errorf("got %v", err)
	}
	if s.ShutdownTimeout != 9*time.Second || len(s.Keys) != 1 {
		t.Errorf("it is not as far as it could be read: %+v", s)
	}
}

// TestProxiesThatTheLibraryWouldIgnore are refused, and no others.
func TestProxiesThatTheLibraryWouldIgnore(t *testing.T) {
	for _, name := range []string{"HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy"} {
		for _, text := range []string{"http://proxy:3128", "proxy:3128", "proxy", "socks5://proxy:1080", "http://u:p@proxy:3128", ""} {
			accepted(t, with(name+"="+text), Options{})
		}
		for _, text := range []string{"%zz", ":3128", "a proxy", "http://S3cret@:3128"} {
			wantRefused(t, with(name+"="+text), Options{}, name+" is not a proxy's URL: give http://host:port, or unset it")
		}
	}
}
