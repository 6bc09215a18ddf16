package render

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"text/template"
	"time"
	"unicode/utf8"

	"github.com/balena-injector/injector/internal/rootdir"
)

// Functions says what templates may reach beyond their View. The zero value: nothing.
type Functions struct {
	Files *rootdir.Dir // what `file` reads from, opened once and for all; nil: `file` fails
	Env   []string     // the variables that `env` may read
	// Lookup returns the value of one of them, and whether it is set; nil: none is.
	Lookup func(name string) (string, bool)
}

// table returns the functions that templates may call, beside text/template's own.
func (f Functions) table() template.FuncMap {
	return template.FuncMap{
		// Values as text of other formats.
		"json":      toJSON,
		"base64":    func(s string) string { return base64.StdEncoding.EncodeToString([]byte(s)) },
		"base64url": func(s string) string { return base64.URLEncoding.EncodeToString([]byte(s)) },
		"shell":     shellQuote,
		"host":      hostOf,
		"trim":      strings.TrimSpace,
		// Times.
		"rfc3339": func(t time.Time) string { return t.UTC().Format(time.RFC3339) },
		"unix":    func(t time.Time) int64 { return t.Unix() },
		"date":    func(layout string, t time.Time) string { return t.UTC().Format(layout) },
		// The world outside.
		"file": f.file,
		"env":  f.env,
	}
}

func toJSON(v any) (string, error) {
	if text, ok := v.(string); ok && !utf8.ValidString(text) {
		return "", errors.New("json: the text is not UTF-8, and would be changed")
	}
	var out strings.Builder
	e := json.NewEncoder(&out)
	e.SetEscapeHTML(false)
	err := e.Encode(v)
	return strings.TrimSuffix(out.String(), "\n"), err
}

// shellQuote returns s as one word of a POSIX shell.
func shellQuote(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }

func hostOf(text string) (string, error) {
	u, err := url.Parse(text)
	if err != nil || u.Hostname() == "" {
		return "", errors.New("host: not a URL")
	}
	return u.Hostname(), nil
}

// file returns the content of a file below Files; links that lead out of it are not followed.
func (f Functions) file(name string) (string, error) {
	if f.Files == nil {
		return "", errors.New("file: set INJECTOR_TEMPLATE_FILES to the directory whose files templates may include")
	}
	data, err := f.Files.ReadInside(name, maxTemplate)
	if err != nil {
		// Not which file: the name may have been made of the token, and the template's line shows it.
		return "", fmt.Errorf("file in %s: %w", f.Files.Path(), rootdir.WithoutPath(err))
	}
	return string(data), nil
}

// env returns a variable that is allowed and set.
func (f Functions) env(name string) (string, error) {
	if !slices.Contains(f.Env, name) {
		return "", errors.New("env: this variable is not in INJECTOR_TEMPLATE_ENV")
	}
	value, ok := "", false
	if f.Lookup != nil {
		value, ok = f.Lookup(name)
	}
	if !ok {
		return "", errors.New("env: this variable is not set")
	}
	return value, nil
}
