package render

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"text/template"
	"time"
	"unicode/utf8"

	"github.com/balena-injector/injector/internal/rootdir"
	"github.com/balena-injector/injector/key"
)

// maxTemplate and maxRendered cap what is read and what is written.
const (
	maxTemplate = 1 << 20
	maxRendered = 1 << 20
)

// View is what a template sees.
type View struct {
	Token      string    // the key's secret; never empty
	KeyID      int64     // the server's row; 0 until it is known, a moment after the first publication
	Name       string    // the key's name, as the dashboard shows it
	Kind       string    // user, fleet or device
	Expiry     time.Time // by the server's clock, in UTC; extensions move it
	Generation int       // 1 for the first key, one more for each that replaced it
	URL        string    // the API's
	UserID     int64     // the account that minted the key
	Target     string    // the fleet or device, as configured; empty for user keys
}

// About is what is the same for all publications of a key.
type About struct {
	URL    string // the API's
	Target string // the fleet or device, as configured; empty for user keys
}

func (a About) view(p key.Publication) View {
	return View{Token: p.Key.Secret.Reveal(), KeyID: p.Key.ID, Name: p.Key.Name, Kind: string(p.Key.Kind), Expiry: p.Key.Expiry.UTC(),
		Generation: p.Generation, URL: a.URL, UserID: p.Key.UserID, Target: a.Target}
}

// Template turns a View into the bytes of an output. It is not safe for concurrent use; a Files
// that has it takes care.
type Template struct {
	name   string // for people: its path, or the preset's name
	path   string // empty: a preset
	funcs  template.FuncMap
	source []byte
	parsed *template.Template
}

// NewTemplate returns the template in the file at path, which is read by Load.
func NewTemplate(path string, f Functions) *Template {
	return &Template{name: path, path: path, funcs: f.table()}
}

// Path returns the file that the template comes from; empty for a preset.
func (t *Template) Path() string { return t.path }

// Load reads and parses the template's file, and reports whether it is another than before. If it
// fails, the last good one stays.
func (t *Template) Load() (changed bool, err error) {
	if t.path == "" {
		return false, nil
	}
	source, err := readTemplate(t.path)
	if err != nil {
		return false, fmt.Errorf("template %s: %w", t.path, err)
	}
	if t.parsed != nil && bytes.Equal(source, t.source) {
		return false, nil
	}
	if err := checkText(source); err != nil {
		return false, fmt.Errorf("template %s: %w", t.path, err)
	}
	parsed, err := parse(t.name, string(source), t.funcs)
	if err != nil {
		return false, err
	}
	t.source, t.parsed = source, parsed
	return true, nil
}

// checkText refuses what the template language would change, or not find anything in.
func checkText(source []byte) error {
	switch {
	case bytes.HasPrefix(source, []byte("\xff\xfe")), bytes.HasPrefix(source, []byte("\xfe\xff")):
		return errors.New("it is UTF-16 text: save it as UTF-8")
	case bytes.ContainsRune(source, 0):
		return errors.New("it has zero bytes in it, as UTF-16 text has: save it as UTF-8")
	case !utf8.Valid(source):
		return errors.New("it is not UTF-8 text, but perhaps Latin-1 (ISO 8859-1, Windows-1252): save it as UTF-8")
	case bytes.HasPrefix(source, []byte("\ufeff")):
		return errors.New("it begins with a byte order mark, which would be in the output: save it as UTF-8 without one")
	}
	return nil
}

func parse(name, source string, funcs template.FuncMap) (*template.Template, error) {
	return template.New(name).Funcs(funcs).Option("missingkey=error").Parse(source)
}

func readTemplate(path string) ([]byte, error) {
	data, err := rootdir.ReadFile(path, maxTemplate)
	return data, rootdir.WithoutPath(err)
}

// render returns the bytes for v. The error names the template and the line, and shows no token.
func (t *Template) render(v View) ([]byte, error) {
	if t.parsed == nil {
		if _, err := t.Load(); err != nil {
			return nil, err
		}
	}
	var out limited
	if err := t.parsed.Execute(&out, v); err != nil {
		// A function that was given the token may have put it into its error.
		text := strings.ReplaceAll(err.Error(), v.Token, "[token]")
		if strings.Contains(text, "can't evaluate field") {
			text += " (a template sees .Token, .KeyID, .Name, .Kind, .Expiry, .Generation, .URL, .UserID and .Target)"
		}
		return nil, errors.New(text)
	}
	if len(bytes.TrimSpace(out.Bytes())) == 0 {
		return nil, fmt.Errorf("template: %s: it renders to nothing", t.name)
	}
	return out.Bytes(), nil
}

// limited is a buffer that does not grow without end.
type limited struct{ bytes.Buffer }

func (l *limited) Write(p []byte) (int, error) {
	if l.Len()+len(p) > maxRendered {
		return 0, errors.New("it renders to more than 1 MiB")
	}
	return l.Buffer.Write(p)
}
