package config

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/balena-injector/injector/render"
)

// TestLocateFindsThePlace where the configuration puts it, whatever else is wrong with that.
func TestLocateFindsThePlace(t *testing.T) {
	for name, c := range map[string]struct {
		set         []string
		supervising bool
		want        Place
	}{
		"nothing is set": {
			want: Place{Dir: "/secrets/.injector"},
		},
		"all else is wrong": {
			set: []string{
				"INJECTOR_TTL=x",
				"BALENA_PASSWORD_FILE=/no/such/file",
				"INJECTOR_NO_SUCH_SETTING=x",
				"INJECTOR_NOTIFY_COMMAND=no-such-program",
				"INJECTOR_TEMPLATE_FILES=/no/such/directory",
				"INJECTOR_CA_FILE=/no/such/file",
			},
			want: Place{Dir: "/secrets/.injector"},
		},
		"a directory": {
			set:  []string{"INJECTOR_STATE_DIR=/state"},
			want: Place{Dir: "/state", Explicit: true},
		},
		"an output": {
			set:  []string{"INJECTOR_OUTPUT=/run/app/token"},
			want: Place{Dir: "/run/app/.injector", Explicit: true, Outputs: []string{"/run/app/token"}},
		},
		"a template that is not there": {
			set:  []string{"INJECTOR_TEMPLATES=/no/such/template:/run/app/app.conf,dotenv:/run/other/app.env"},
			want: Place{Dir: "/run/app/.injector", Explicit: true, Outputs: []string{"/run/app/app.conf", "/run/other/app.env"}},
		},
		"a directory that a preset makes": {
			set:  []string{"INJECTOR_TEMPLATES=balena-cli:/run/app/.balena"},
			want: Place{Dir: "/run/app/.injector", Explicit: true, Outputs: []string{"/run/app/.balena/token"}},
		},
		"several keys": {
			set:  []string{"INJECTOR_KEYS=a,b", "INJECTOR_B_OUTPUT=/run/b/token"},
			want: Place{Dir: "/secrets/.injector", Explicit: true, Outputs: []string{"/secrets/a", "/run/b/token"}},
		},
		"exec with an output": {
			set:         []string{"INJECTOR_OUTPUT=/run/app/token"},
			supervising: true,
			want:        Place{Dir: "/run/app/.injector", Explicit: true, Outputs: []string{"/run/app/token"}},
		},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := Locate(NewEnviron(c.set), c.supervising)
			if err != nil || got.Dir != c.want.Dir || got.Explicit != c.want.Explicit || !slices.Equal(got.Outputs, c.want.Outputs) {
				t.Errorf("it is %+v, not %+v: %v", got, c.want, err)
			}
		})
	}
}

// TestLocateRefusesAPlaceThatCannotBe and tells of nothing else: it would look in the wrong place.
func TestLocateRefusesAPlaceThatCannotBe(t *testing.T) {
	for _, name := range []string{"INJECTOR_STATE_DIR", "INJECTOR_OUTPUT"} {
		place, err := Locate(NewEnviron([]string{name + "=relative", "INJECTOR_TTL=x"}), false)
		problems, ok := errors.AsType[Problems](err)
		if !ok || len(problems) != 1 || problems[0].Variable != name || place.Dir != "" {
			t.Errorf("%s: it is %+v: %v", name, place, err)
		}
	}
}

// TestExecsOfOneConfigurationMeet in a place in memory that others do not share, and that no secret and no passing
// setting changes. Locate finds the one that Read has chosen.
func TestExecsOfOneConfigurationMeet(t *testing.T) {
	place := func(entries ...string) string {
		t.Helper()
		env := with(entries...)
		s := accepted(t, env, Options{Supervising: true})
		at, err := Locate(env, true)
		if err != nil || at.Dir != s.StateDir || at.Explicit || len(at.Outputs) != 0 {
			t.Errorf("%q: %+v is found, and %s chosen: %v", entries, at, s.StateDir, err)
		}
		if !strings.HasPrefix(s.StateDir, ExecPlace()) || !strings.HasPrefix(ExecPlace(), "/dev/shm/") {
			t.Errorf("%q: it is %s", entries, s.StateDir)
		}
		return s.StateDir
	}
	usual := place()
	for _, entries := range [][]string{
		nil,
		{"BALENA_PASSWORD=another"},
		{"BALENA_USERNAME=INJECTOR"},
		{"INJECTOR_TTL=2h"},
		{"INJECTOR_LOG_LEVEL=debug"},
		{"BALENA_API_URL=https://api.balena-cloud.com/"},
	} {
		if got := place(entries...); got != usual {
			t.Errorf("with %q it is %s, not %s", entries, got, usual)
		}
	}
	seen := map[string][]string{usual: nil}
	for _, entries := range [][]string{
		{"BALENA_USERNAME=somebody"},
		{"BALENA_API_URL=https://api.example.org"},
		{"INJECTOR_NAME=other"},
		{"INJECTOR_TOKEN_VARIABLES=TOKEN"},
		{"INJECTOR_KIND=fleet", "INJECTOR_TARGET=org/fleet"},
		{"INJECTOR_KIND=fleet", "INJECTOR_TARGET=org/another"},
		{"INJECTOR_KIND=device", "INJECTOR_TARGET=1"},
	} {
		got := place(entries...)
		if other, twice := seen[got]; twice {
			t.Errorf("%q and %q have one place", entries, other)
		}
		seen[got] = entries
	}
	several, err := Locate(with("INJECTOR_KEYS=a"), true)
	if _, known := seen[several.Dir]; err != nil || known || !strings.HasPrefix(several.Dir, ExecPlace()) {
		t.Errorf("with several keys it is %+v: %v", several, err)
	}
}

// TestAwaitedOutputsNeedNoCredential and no template: the app's container has neither.
func TestAwaitedOutputsNeedNoCredential(t *testing.T) {
	for name, c := range map[string]struct {
		set   []string
		paths []string
		limit time.Duration
	}{
		"nothing is set": {
			paths: []string{"/secrets/balena-token"},
			limit: 2 * time.Minute,
		},
		"one key": {
			set: []string{
				"INJECTOR_OUTPUT=/run/app/token",
				"INJECTOR_TEMPLATES=/no/such/template:/run/app/app.conf:0444,balena-cli:/run/app/.balena, netrc:/run/app/netrc",
				"INJECTOR_INIT_TIMEOUT=5s",
				"BALENA_PASSWORD_FILE=/no/such/file",
			},
			paths: []string{"/run/app/token", "/run/app/app.conf", "/run/app/.balena/token", "/run/app/netrc"},
			limit: 5 * time.Second,
		},
		"several": {
			set:   []string{"INJECTOR_KEYS=a,b", "INJECTOR_B_OUTPUT=none", "INJECTOR_B_TEMPLATES=raw:/run/b/token"},
			paths: []string{"/secrets/a", "/run/b/token"},
			limit: 2 * time.Minute,
		},
	} {
		outputs, limit, err := Awaited(NewEnviron(c.set))
		if got := (Key{Outputs: outputs}).Paths(); err != nil || !slices.Equal(got, c.paths) || limit != c.limit {
			t.Errorf("%s: %q for %v, not %q for %v: %v", name, got, limit, c.paths, c.limit, err)
		}
	}
	outputs, limit, err := Awaited(NewEnviron([]string{"INJECTOR_OUTPUT=x", "INJECTOR_INIT_TIMEOUT=x", "INJECTOR_TEMPLATES=raw"}))
	problems, ok := errors.AsType[Problems](err)
	if !ok || len(problems) != 3 || outputs != nil || limit != 0 {
		t.Errorf("%+v for %v: %v", outputs, limit, err)
	}
}

// TestTheStateLiesBesideTheFirstOutput or beside the directory that is made for it, and never where an app can read.
func TestTheStateLiesBesideTheFirstOutput(t *testing.T) {
	dir := t.TempDir()
	at := func(name string) string { return filepath.Join(dir, name) }
	if err := errors.Join(os.Mkdir(at("real"), 0o700), os.Symlink("real", at("link"))); err != nil {
		t.Fatal(err)
	}
	for want, set := range map[string][]string{
		"/a/.injector": {"INJECTOR_OUTPUT=/a/token", "INJECTOR_TEMPLATES=raw:/b/token"},
		"/b/.injector": {"INJECTOR_TEMPLATES=raw:/b/token,raw:/a/token"},
		"/c/.injector": {"INJECTOR_TEMPLATES=balena-cli:/c/app"},
		"/d/state":     {"INJECTOR_OUTPUT=/a/token", "INJECTOR_STATE_DIR=/d//x/../state"},
	} {
		if s := accepted(t, with(set...), Options{}); s.StateDir != want {
			t.Errorf("%q: it is %s, not %s", set, s.StateDir, want)
		}
	}
	for name, set := range map[string][]string{
		"the same":           {"INJECTOR_OUTPUT=" + at("real/token"), "INJECTOR_STATE_DIR=" + at("real")},
		"the same by a link": {"INJECTOR_OUTPUT=" + at("link/token"), "INJECTOR_STATE_DIR=" + at("real")},
		"a link to it":       {"INJECTOR_OUTPUT=" + at("real/token"), "INJECTOR_STATE_DIR=" + at("link")},
		"that of a .json":    {"INJECTOR_TEMPLATES=raw:/x/y/z", "INJECTOR_STATE_DIR=/x/y"},
	} {
		t.Run(name, func(t *testing.T) {
			wantRefused(t, with(set...), Options{},
				"INJECTOR_STATE_DIR is an output's directory, where the app can read: give a directory of its own")
		})
	}
	for output, cache := range map[string]string{"link/token": "real/session", "real/token": "link/session"} {
		wantRefused(t, with("INJECTOR_OUTPUT="+at(output), "INJECTOR_SESSION_CACHE="+at(cache)), Options{},
			"INJECTOR_SESSION_CACHE lies in an output's directory")
	}
}

// TestNoTwoThingsShareAPlace: outputs, what lies beside them, and what is read.
func TestNoTwoThingsShareAPlace(t *testing.T) {
	dir := t.TempDir()
	at := func(name string) string { return filepath.Join(dir, name) }
	if err := errors.Join(os.Mkdir(at("real"), 0o700), os.Symlink("real", at("link"))); err != nil {
		t.Fatal(err)
	}
	rewrite(t, at("real/x"), "a template, or a password")
	const twice, read = " twice (PATH.json lies beside each output)", ", which is read: a template, a credential or certificates"
	for name, c := range map[string]struct {
		set  []string
		says string
	}{
		"one path": {
			set:  []string{"INJECTOR_OUTPUT=/a/token", "INJECTOR_TEMPLATES=raw:/a/token"},
			says: "INJECTOR_OUTPUT and another output write /a/token" + twice,
		},
		"one path written otherwise": {
			set:  []string{"INJECTOR_OUTPUT=/a/token", "INJECTOR_TEMPLATES=raw:/a/b/..//token"},
			says: "write /a/token" + twice,
		},
		"what lies beside another": {
			set:  []string{"INJECTOR_OUTPUT=/a/token", "INJECTOR_TEMPLATES=json:/a/token.json"},
			says: "write /a/token.json" + twice,
		},
		"what another lies beside": {
			set:  []string{"INJECTOR_OUTPUT=/a/token.json", "INJECTOR_TEMPLATES=json:/a/token"},
			says: "write /a/token.json" + twice,
		},
		"one file by a link": {
			set:  []string{"INJECTOR_OUTPUT=" + at("link/token"), "INJECTOR_TEMPLATES=raw:" + at("real/token")},
			says: "write " + at("real/token") + twice,
		},
		"another key's": {
			set:  []string{"INJECTOR_KEYS=a,b", "INJECTOR_B_OUTPUT=/secrets/a"},
			says: "INJECTOR_B_OUTPUT and another output write /secrets/a" + twice,
		},
		"its own template": {
			set:  []string{"INJECTOR_TEMPLATES=" + at("real/x") + ":" + at("link/x")},
			says: "INJECTOR_OUTPUT or INJECTOR_TEMPLATES write " + at("real/x") + read,
		},
		"a credential": {
			set:  []string{"BALENA_PASSWORD=", "BALENA_PASSWORD_FILE=" + at("real/x"), "INJECTOR_OUTPUT=" + at("real/x")},
			says: "write " + at("real/x") + read,
		},
	} {
		t.Run(name, func(t *testing.T) { wantRefused(t, with(c.set...), Options{}, c.says) })
	}
	_, err := Read(with("INJECTOR_OUTPUT="+at("real/x"), "INJECTOR_CA_FILE="+at("real/x")), Options{})
	if err == nil || !strings.Contains(err.Error(), "write "+at("real/x")+read) {
		t.Errorf("certificates: %v", err)
	}
}

// TestTemplatesAreReadAsTheyAreWritten SOURCE:DESTINATION[:MODE], and what is wrong with an entry is told with its number.
func TestTemplatesAreReadAsTheyAreWritten(t *testing.T) {
	template := written(t, "token={{.Token}}")
	s := accepted(t, with("INJECTOR_OUTPUT=none", "INJECTOR_OUTPUT_MODE=0400",
		"INJECTOR_TEMPLATES=, "+template+":/a/app.conf ,balena-python:/a/.balena:0444,"), Options{})
	outputs := s.Keys[0].Outputs
	if len(outputs) != 2 {
		t.Fatalf("outputs are %+v", outputs)
	}
	if o := outputs[0]; o.Path != "/a/app.conf" || o.Mode != 0o400 || o.Template.Path() != template || o.MakeDir {
		t.Errorf("the first is %+v", o)
	}
	if o := outputs[1]; o.Path != "/a/.balena/balena.cfg" || o.Mode != 0o444 || o.Template.Path() != "" || !o.MakeDir {
		t.Errorf("the second is %+v", o)
	}
	for text, says := range map[string]string{
		"raw:/a;/b":           "has blanks or semicolons in entry 1: separate entries with commas",
		"raw:/a,raw:/b c":     "has blanks or semicolons in entry 2",
		"raw":                 "lacks a part in entry 1, or has one too many",
		"raw:/a,raw:/b:0400:": "lacks a part in entry 2",
		"raw:a":               "is not the absolute path of a file",
		"jsno:/a":             "names neither a preset nor an absolute path in entry 1: did you mean json? Presets are balena-cli, ",
		"my/template:/a":      "names neither a preset nor an absolute path in entry 1: presets are balena-cli, ",
		"raw:/a:0004":         "has a mode in entry 1 that cannot be used",
		"raw:/a:666":          "has a mode in entry 1 that cannot be used",
		"raw:/a:40":           "has a mode in entry 1 that cannot be used",
		"/no/such:/a":         "has a template that cannot be used: template /no/such: no such file or directory",
	} {
		wantRefused(t, with("INJECTOR_TEMPLATES="+text), Options{}, "INJECTOR_TEMPLATES "+says)
	}
	wantRefused(t, with("INJECTOR_OUTPUT=none"), Options{}, "INJECTOR_OUTPUT is none, and there are no templates")
}

// TestTemplatesReachNothingOfTheInjectors: neither its variables nor a directory from which its credentials or its state
// can be read.
func TestTemplatesReachNothingOfTheInjectors(t *testing.T) {
	for _, name := range []string{"BALENA_PASSWORD", "INJECTOR_TTL", "BALENA_API_KEY_FILE", "BALENA_USERNAME"} {
		wantRefused(t, with("INJECTOR_TEMPLATE_ENV=HOME,"+name), Options{},
			"INJECTOR_TEMPLATE_ENV lists "+name+", which is the injector's own")
	}
	dir := t.TempDir()
	at := func(name string) string { return filepath.Join(dir, name) }
	for _, name := range []string{"parts", "private", "private/deeper"} {
		if err := os.Mkdir(at(name), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	rewrite(t, at("private/password"), "x")
	if err := errors.Join(os.Symlink(at("private/password"), at("parts-password")), os.Symlink("private", at("link"))); err != nil {
		t.Fatal(err)
	}
	file := "BALENA_PASSWORD_FILE=" + at("private/password")
	for name, c := range map[string]struct {
		files string
		set   []string
		says  string // empty: it is accepted
	}{
		"of its own":             {at("parts"), []string{file}, ""},
		"of nothing private":     {at("private"), nil, ""},
		"a credential's":         {at("private"), []string{file}, "is a directory from which " + at("private/password") + " can be read"},
		"above a credential's":   {dir, []string{file}, "is a directory from which "},
		"a link's":               {at("link"), []string{file}, "is a directory from which " + at("private/password") + " can be read"},
		"to which a link leads":  {at("private"), []string{"BALENA_PASSWORD_FILE=" + at("parts-password")}, "is a directory from which "},
		"with the state":         {at("parts"), []string{"INJECTOR_STATE_DIR=" + at("parts/state")}, "is a directory from which "},
		"in the state":           {at("private/deeper"), []string{"INJECTOR_STATE_DIR=" + at("private")}, "is a directory from which "},
		"with dots in a name":    {at("parts"), []string{"INJECTOR_STATE_DIR=" + at("parts/..state")}, "is a directory from which "},
		"with a session":         {at("parts"), []string{"INJECTOR_SESSION_CACHE=" + at("parts/session")}, "is a directory from which "},
		"of processes":           {"/proc/self", nil, "is a directory from which environ can be read"},
		"of everything":          {"/", nil, "is a directory from which "},
		"that is not there":      {at("absent"), nil, "cannot be opened: no such file or directory"},
		"that is a file":         {at("private/password"), nil, "cannot be opened: not a directory"},
		"with a name like it":    {at("parts"), []string{"INJECTOR_STATE_DIR=" + at("parts2")}, ""},
		"beside what has dots":   {at("parts"), []string{"INJECTOR_STATE_DIR=" + at("..parts")}, ""},
		"not of an absolute one": {"parts", nil, "is not the absolute path"},
	} {
		t.Run(name, func(t *testing.T) {
			set := append([]string{"INJECTOR_TEMPLATE_FILES=" + c.files}, c.set...)
			if slices.ContainsFunc(c.set, func(entry string) bool { return strings.HasPrefix(entry, "BALENA_PASSWORD_FILE=") }) {
				set = append(set, "BALENA_PASSWORD=")
			}
			if c.says != "" {
				s, err := Read(with(set...), Options{})
				if err == nil || !strings.Contains(err.Error(), "INJECTOR_TEMPLATE_FILES "+c.says) {
					t.Errorf("it is not refused: %v", err)
				}
				if s.Functions.Files != nil {
					_ = s.Functions.Files.Close()
				}
				return
			}
			s := accepted(t, with(set...), Options{})
			if s.Functions.Files == nil || s.Functions.Files.Path() != c.files {
				t.Fatal("it is not opened")
			}
			_ = s.Functions.Files.Close()
		})
	}
}

// TestOwnersAndModes are numbers with which the owner can read, and others cannot write.
func TestOwnersAndModes(t *testing.T) {
	for text, want := range map[string]render.Owner{
		"1000:1001":   {UID: 1000, GID: 1001},
		":1000":       {UID: -1, GID: 1000},
		"1000:":       {UID: 1000, GID: -1},
		"0:0":         {UID: 0, GID: 0},
		"":            render.Keep,
		"2147483647:": {UID: 2147483647, GID: -1},
	} {
		if s := accepted(t, with("INJECTOR_OUTPUT_OWNER="+text), Options{}); s.Keys[0].Outputs[0].Owner != want {
			t.Errorf("%q is %+v", text, s.Keys[0].Outputs[0].Owner)
		}
	}
	for _, text := range []string{"1000", "app:app", "-1:1", "1:2:3", "2147483648:", "1 :2"} {
		wantRefused(t, with("INJECTOR_OUTPUT_OWNER="+text), Options{}, "INJECTOR_OUTPUT_OWNER is not an owner")
	}
	for text, want := range map[string]os.FileMode{"0440": 0o440, "440": 0o440, "0400": 0o400, "0775": 0o775, "0664": 0o664} {
		if s := accepted(t, with("INJECTOR_OUTPUT_MODE="+text), Options{}); s.Keys[0].Outputs[0].Mode != want {
			t.Errorf("%q is %v", text, s.Keys[0].Outputs[0].Mode)
		}
	}
	for _, text := range []string{"0666", "0040", "1440", "4755", "44", "0o440", "-r--r-----", "0888"} {
		wantRefused(t, with("INJECTOR_OUTPUT_MODE="+text), Options{}, "INJECTOR_OUTPUT_MODE is not a mode that can be used")
	}
}
