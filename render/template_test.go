package render

import (
	"encoding/base64"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/balena-injector/injector/internal/rootdir"
	"github.com/balena-injector/injector/internal/tally"
	"github.com/balena-injector/injector/key"
)

// templated returns Files with outputs for these templates, and where they are.
func templated(t *testing.T, f Functions, sources ...string) (files *Files, templates, outputs []string) {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "injector-test-") // a disk would take a minute
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	var list []Output
	for i, source := range sources {
		path := filepath.Join(dir, "template"+string(rune('a'+i)))
		writeText(t, path, source)
		templates = append(templates, path)
		outputs = append(outputs, filepath.Join(dir, "output"+string(rune('a'+i))))
		list = append(list, Output{Path: outputs[i], Mode: 0o440, Owner: Keep, Template: NewTemplate(path, f)})
	}
	files = New(Config{Outputs: list, Dirs: newDirs(t, true), About: About{URL: "https://api.example.org:8443/x", Target: "acme/fleet"}})
	return files, templates, outputs
}

func writeText(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func openDir(t *testing.T, path string) *rootdir.Dir {
	t.Helper()
	dir, err := rootdir.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = dir.Close() })
	return dir
}

func readText(t *testing.T, path string) string {
	t.Helper()
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(raw)
}

func TestTemplatesSeeThePublication(t *testing.T) {
	dir := t.TempDir()
	writeText(t, filepath.Join(dir, "note"), "a note\n")
	t.Setenv("APP_NAME", "it's")
	f := Functions{Files: openDir(t, dir), Env: []string{"APP_NAME"}, Lookup: os.LookupEnv}
	p := publication(3)
	p.Key.ID, p.Key.Expiry, p.Key.Kind = 7, time.Date(2031, 2, 3, 4, 5, 6, 0, time.UTC), key.Fleet
	secret := p.Key.Secret.Reveal()
	for source, want := range map[string]string{
		"{{.Token}}": secret,
		"{{.KeyID}} {{.Name}} {{.Kind}} {{.Generation}} {{.UserID}} {{.Target}} {{.URL}}": "7 " + p.Key.Name +
			" fleet 3 1 acme/fleet https://api.example.org:8443/x",
		"{{rfc3339 .Expiry}} {{unix .Expiry}} {{date \"02.01.2006\" .Expiry}}":             "2031-02-03T04:05:06Z 1927857906 03.02.2031",
		"{{json .Target}} {{base64 \"a?b>\"}} {{base64url \"a?b>\"}} {{urlquery \"a b\"}}": `"acme/fleet" YT9iPg== YT9iPg== a+b`,
		"{{shell (env \"APP_NAME\")}} {{host .URL}} {{trim (file \"note\")}}":              `'it'\''s' api.example.org a note`,
		"{{if eq .Kind \"fleet\"}}yes{{end}}":                                              "yes",
	} {
		files, _, outputs := templated(t, f, source)
		if err := files.Publish(t.Context(), p); err != nil {
			t.Errorf("%s: %v", source, err)
		} else if got := readText(t, outputs[0]); got != want {
			t.Errorf("%s: %q, not %q", source, got, want)
		}
	}
}

// showsToken looks for a token as it is, for most of it, and for what base64 makes of it.
func showsToken(text, token string) bool {
	return strings.Contains(text, token[1:]) || strings.Contains(text, base64.StdEncoding.EncodeToString([]byte(token)))
}

// TestTemplatesThatFail has the line in each error, no token, and the old bytes.
func TestTemplatesThatFail(t *testing.T) {
	dir := t.TempDir()
	if err := os.Symlink("/etc/hostname", filepath.Join(dir, "away")); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mkfifo(filepath.Join(dir, "pipe"), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("BALENA_PASSWORD", "hunter2")
	f := Functions{Files: openDir(t, dir), Env: []string{"APP_NAME"}, Lookup: os.LookupEnv}
	first := publication(1)
	for source, say := range map[string]string{
		"a\n{{.Tokn}}":                       ":2:2:",
		"{{.Token":                           ":1:",
		"{{fail}}":                           `"fail" not defined`,
		"\n\n{{env \"BALENA_PASSWORD\"}}":    ":3:2:",
		"{{env \"APP_NAME\"}}":               "is not set",
		"{{env .Token}}":                     "is not in INJECTOR_TEMPLATE_ENV",
		"{{env (slice .Token 1)}}":           "is not in INJECTOR_TEMPLATE_ENV",
		"{{file (base64 .Token)}}":           "no such file",
		"{{file \"pipe\"}}":                  "not a regular file",
		"{{file \"../etc/hostname\"}}":       ":1:2:",
		"{{file \"away\"}}":                  ":1:2:",
		"{{file .Token}}":                    "no such file",
		"{{index .Token 99}}":                "out of range",
		"  \n":                               "renders to nothing",
		"{{range $i, $c := .}}{{$c}}{{end}}": "range can't iterate",
		"{{define \"x\"}}{{template \"x\" .}}{{end}}{{template \"x\" .}}": "maximum template depth",
	} {
		files, templates, outputs := templated(t, f, "good {{.Token}}", "good {{.Token}}")
		if err := files.Publish(t.Context(), first); err != nil {
			t.Fatal(err)
		}
		before := []string{readText(t, outputs[0]), readText(t, outputs[1])}
		writeText(t, templates[1], source)
		err := files.Reload()
		next := publication(2)
		if err == nil {
			err = files.Publish(t.Context(), next)
		}
		if err == nil || !strings.Contains(err.Error(), say) || !strings.Contains(err.Error(), templates[1]) {
			t.Errorf("%q: error %v does not say %q", source, err, say)
		}
		if err != nil && (showsToken(err.Error(), next.Key.Secret.Reveal()) || strings.Contains(err.Error(), "hunter2")) {
			t.Errorf("%q: the error shows a secret: %v", source, err)
		}
		if readText(t, outputs[0]) != before[0] || readText(t, outputs[1]) != before[1] {
			t.Errorf("%q: an output has changed", source)
		}
		writeText(t, templates[1], "{{.Token}} again")
		if err := files.Reload(); err != nil {
			t.Errorf("%q: mended: %v", source, err)
		}
		if err := files.Publish(t.Context(), next); err != nil || files.Inspect(t.Context(), next) != nil {
			t.Errorf("%q: mended: %v", source, err)
		}
	}
}

func TestATemplateThatChanges(t *testing.T) {
	files, templates, outputs := templated(t, Functions{}, "one {{.Token}} {{.Generation}}", "{{.Token}}")
	p := publication(1)
	if err := files.Publish(t.Context(), p); err != nil {
		t.Fatal(err)
	}
	untouched, _ := os.Stat(outputs[1])
	writeText(t, templates[0], "two {{.Token}} {{.Generation}}")
	if err := files.Reload(); err != nil {
		t.Fatal(err)
	}
	if files.Inspect(t.Context(), p) == nil {
		t.Error("the output is stale, and nobody says so")
	}
	if err := files.Publish(t.Context(), p); err != nil || files.Inspect(t.Context(), p) != nil {
		t.Fatal(err)
	}
	if got := readText(t, outputs[0]); got != "two "+p.Key.Secret.Reveal()+" 1" {
		t.Errorf("got %q", got)
	}
	if after, _ := os.Stat(outputs[1]); !os.SameFile(untouched, after) {
		t.Error("an output whose bytes are equal was written again")
	}
	p.Key.Expiry = p.Key.Expiry.Add(time.Hour)
	if files.Inspect(t.Context(), p) != nil {
		t.Error("an expiry that moved makes outputs stale")
	}
}

func TestPresets(t *testing.T) {
	p := publication(2)
	secret := p.Key.Secret.Reveal()
	for name, want := range map[string]string{
		"raw":           secret,
		"dotenv":        "BALENA_TOKEN=" + secret + "\nBALENA_API_URL=https://api.example.org\n",
		"balena-cli":    secret,
		"balena-python": "[Settings]\ntoken = " + secret + "\n",
		"netrc":         "machine api.example.org login " + p.Key.Name + " password " + secret + "\n",
		"header":        "Authorization: Bearer " + secret + "\n",
		"json": `{"token":"` + secret + `","expiry":"2033-05-18T03:33:20Z","generation":2,` +
			`"name":"` + p.Key.Name + `","url":"https://api.example.org"}` + "\n",
	} {
		_, template, ok := LookUpPreset(name)
		if !ok {
			t.Errorf("there is no preset %s", name)
			continue
		}
		got, err := template.render(About{URL: "https://api.example.org"}.view(p))
		if err != nil || string(got) != want {
			t.Errorf("%s: %q (%v), not %q", name, got, err, want)
		}
	}
	if n := len(Presets()); n != 7 {
		t.Errorf("%d presets, and 7 are looked at here", n)
	}
}

func TestAPresetThatIsADirectory(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data")
	_, template, _ := LookUpPreset("balena-cli")
	f := newFiles(t, Output{Path: filepath.Join(dir, "token"), Mode: 0o440, Owner: Keep, Template: template, MakeDir: true})
	p := publication(1)
	if err := f.Publish(t.Context(), p); err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(dir)
	if err != nil || info.Mode().Perm() != 0o770 {
		t.Errorf("%v, %v", info, err)
	}
}

// TestReadersOfAllOutputsSeeOneGeneration lets readers look at three outputs while they are
// replaced: with the same generation before and after, and nothing changing, they belong together.
func TestReadersOfAllOutputsSeeOneGeneration(t *testing.T) {
	const rotations = 3000
	files, _, outputs := templated(t, Functions{}, "{{.Token}}", "{{.Generation}} {{.Token}}", "{{json .Token}}")
	publish := func(n int) {
		p := publication(n)
		if err := files.Publish(t.Context(), p); err != nil {
			t.Error(err)
		}
		if err := files.Describe(t.Context(), p); err != nil {
			t.Error(err)
		}
	}
	publish(1)
	info := func() (i Info) {
		raw, err := os.ReadFile(outputs[1] + ".json")
		if err != nil || json.Unmarshal(raw, &i) != nil {
			t.Errorf("the description: %q, %v", raw, err)
		}
		return i
	}
	var done atomic.Bool
	var together, apart atomic.Int64
	var readers sync.WaitGroup
	for range 3 {
		readers.Go(func() {
			for !done.Load() {
				before := info()
				a, _ := os.ReadFile(outputs[0])
				b, _ := os.ReadFile(outputs[1])
				c, _ := os.ReadFile(outputs[2])
				after := info()
				if before.Changing || after.Changing || before.Generation != after.Generation {
					apart.Add(1)
					continue
				}
				together.Add(1)
				_, second, _ := strings.Cut(string(b), " ")
				if string(a) != second || `"`+string(a)+`"` != string(c) || len(a) != 32 {
					tally.Add("bad reads", 1)
					t.Errorf("mixed: %q %q %q", a, b, c)
					return
				}
			}
		})
	}
	for n := 2; n <= rotations; n++ {
		publish(n)
	}
	done.Store(true)
	readers.Wait()
	tally.Add("reads by apps", int(together.Load()))
	if together.Load() < 100 || apart.Load() == 0 {
		t.Errorf("%d reads of one generation, and %d in between: too few to tell", together.Load(), apart.Load())
	}
}

// FuzzTemplates gives templates any text: no error shows the token, and nothing empty is rendered.
func FuzzTemplates(f *testing.F) {
	f.Add("{{.Token}}")
	f.Add("{{env .Token}}{{file .Name}}")
	f.Add("{{range .Token}}{{.}}{{end}}")
	f.Add("{{printf \"%d\" .Token | json | base64 | shell}}")
	f.Fuzz(func(t *testing.T, source string) {
		if len(source) > 500 {
			return
		}
		parsed, err := parse("fuzz", source, Functions{}.table())
		if err != nil {
			return
		}
		p := publication(1)
		out, err := (&Template{name: "fuzz", parsed: parsed}).render(About{URL: "https://api.example.org"}.view(p))
		if err != nil && strings.Contains(err.Error(), p.Key.Secret.Reveal()) {
			t.Errorf("the error shows the token: %v", err)
		}
		if err == nil && strings.TrimSpace(string(out)) == "" {
			t.Error("nothing was rendered")
		}
	})
}
