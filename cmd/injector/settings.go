package main

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
	"unicode/utf16"

	"github.com/balena-injector/injector/agent"
	"github.com/balena-injector/injector/balena"
	"github.com/balena-injector/injector/key"
	"github.com/balena-injector/injector/render"
)

// settings is the configuration with a meaning. It never changes.
type settings struct {
	API         balena.Config
	Credentials balena.Credentials
	Login       string // whose credential it is, for the journal; no secret
	Files       []string
	CanRotate   bool // the credential can mint again at any time

	Kind        key.Kind
	Target      balena.Target
	Prefix      string
	Description string
	Times       agent.Times

	Output       render.Output
	OnDisk       bool
	StateDir     string
	SessionCache string

	InitTimeout     time.Duration
	ShutdownDelay   time.Duration
	ShutdownTimeout time.Duration
	KeepOnExit      bool
	Listen          string
	LogLevel        slog.Level
	LogJSON         bool
	Warnings        []string
}

// problem is one thing that is wrong with the configuration.
type problem struct{ Variable, Rule, Fix string }

// configError is all that is wrong with the configuration.
type configError []problem

// Error lists every problem on a line of its own.
func (c configError) Error() string {
	var out strings.Builder
	fmt.Fprintf(&out, "%d configuration %s:", len(c), plural(len(c), "problem"))
	for _, p := range c {
		fmt.Fprintf(&out, "\n  %s %s", p.Variable, p.Rule)
		if p.Fix != "" {
			out.WriteString(": " + p.Fix)
		}
	}
	return out.String()
}

func plural(n int, word string) string {
	if n == 1 {
		return word
	}
	return word + "s"
}

const maxDuration = 365 * 24 * time.Hour

// parser collects problems while it reads.
type parser struct{ problems []problem }

func (p *parser) fail(variable, rule, fix string) {
	p.problems = append(p.problems, problem{variable, rule, fix})
}

func (p *parser) duration(variable, text string, least time.Duration) time.Duration {
	d, err := parseDuration(text)
	switch {
	case err != nil:
		p.fail(variable, fmt.Sprintf("is %q, which is no duration", clip(text)), "give a number with a unit, such as 90s, 15m, 1h or 7d")
	case d < least || d > maxDuration:
		p.fail(variable, fmt.Sprintf("is %s", clip(text)), fmt.Sprintf("give %s to 365d", short(least)))
	}
	return d
}

// parseDuration reads Go's durations, and days before them.
func parseDuration(text string) (time.Duration, error) {
	days, rest, ok := strings.Cut(text, "d")
	if !ok {
		return time.ParseDuration(text)
	}
	n, err := strconv.ParseUint(days, 10, 16)
	d := time.Duration(n) * 24 * time.Hour
	if err != nil || rest == "" {
		return d, err
	}
	more, err := time.ParseDuration(rest)
	return d + more, err
}

// clip shortens a value for an error; settings are no secrets, but may be pasted in wrong.
func clip(text string) string {
	if len(text) > 24 {
		return text[:12] + "…"
	}
	return text
}

// short writes a duration without its zero parts.
func short(d time.Duration) string {
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

func (p *parser) boolean(variable, text string) bool {
	b, err := strconv.ParseBool(text)
	if err != nil {
		p.fail(variable, fmt.Sprintf("is %q", clip(text)), "give true or false")
	}
	return b
}

func (p *parser) absolute(variable, path string) string {
	if !filepath.IsAbs(path) || strings.HasSuffix(path, "/") {
		p.fail(variable, fmt.Sprintf("is %q, which is no absolute path of a file", path), "start it with / and end it with a name")
	}
	return filepath.Clean(path)
}

// parseSettings reads the environment. The error is a configError with all problems at once.
func parseSettings(environ []string) (settings, error) {
	v, err := readVariables()
	if err != nil {
		return settings{}, err
	}
	p := &parser{problems: unknownVariables(environ)}
	var s settings
	p.api(&s, v)
	p.credentials(&s, v)
	p.key(&s, v)
	p.times(&s, v)
	p.places(&s, v)
	p.process(&s, v)
	if len(p.problems) > 0 {
		return s, configError(p.problems)
	}
	return s, nil
}

func (p *parser) api(s *settings, v variables) {
	allow := p.boolean("INJECTOR_ALLOW_HTTP", v.AllowHTTP)
	u, err := balena.CheckURL(v.APIURL, allow)
	if err != nil {
		fix := "openBalena's is https://api. and your domain"
		if strings.HasPrefix(v.APIURL, "http://") {
			fix = "use https://, or set INJECTOR_ALLOW_HTTP=true if the network is yours alone"
		}
		p.fail("BALENA_API_URL", err.Error(), fix)
	} else {
		s.API.URL = u.String()
	}
	s.API.AllowHTTP = allow
	p.proxies()
	s.API.UserAgent = "balena-token-injector/" + version()
	if v.CAFile == "" {
		return
	}
	if s.API.CAs, err = readFile(v.CAFile); err != nil {
		p.fail("INJECTOR_CA_FILE", "cannot be read", err.Error())
	} else if _, err := balena.NewClient(balena.Config{URL: "https://localhost", CAs: s.API.CAs}); err != nil {
		p.fail("INJECTOR_CA_FILE", err.Error(), "give the certificates as -----BEGIN CERTIFICATE----- blocks")
	}
}

// proxies refuses proxy variables that the HTTP library would silently ignore.
func (p *parser) proxies() {
	for _, name := range []string{"HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy"} {
		text := os.Getenv(name)
		u, err := url.Parse(text)
		if err != nil || u.Host == "" {
			u, err = url.Parse("http://" + text)
		}
		if text != "" && (err != nil || u.Hostname() == "") {
			p.fail(name, "is no proxy's URL", "give http://host:port, or unset it")
		}
	}
}

func (p *parser) key(s *settings, v variables) {
	s.Kind = key.Kind(v.Kind)
	switch s.Kind {
	case key.User, key.Fleet, key.Device:
		var err error
		if s.Target, err = balena.ParseTarget(s.Kind, v.Target); err != nil {
			p.fail("INJECTOR_TARGET", err.Error(), "")
		}
	default:
		p.fail("INJECTOR_KIND", fmt.Sprintf("is %q", clip(v.Kind)), "give user, fleet or device")
	}
	s.Prefix, s.Description = v.Name, v.Description
	if err := key.CheckPrefix(v.Name); err != nil {
		p.fail("INJECTOR_NAME", err.Error(), "")
	}
	if n := len(utf16.Encode([]rune(v.Description))); n > 150 {
		p.fail("INJECTOR_DESCRIPTION", fmt.Sprintf("has %d characters", n), "balena takes up to 150")
	}
}

func (p *parser) times(s *settings, v variables) {
	before := len(p.problems)
	t := &s.Times
	t.TTL = p.duration("INJECTOR_TTL", v.TTL, agent.MinTTL)
	t.Check = p.duration("INJECTOR_CHECK_INTERVAL", v.CheckInterval, time.Second)
	t.Overlap = min(time.Minute, t.TTL/6)
	if v.Overlap != "" {
		t.Overlap = p.duration("INJECTOR_OVERLAP", v.Overlap, 0)
	}
	if s.CanRotate = s.Credentials.Password != nil || s.Kind != key.User; s.CanRotate {
		t.MaxTTL = max(24*time.Hour, t.TTL)
	}
	if v.MaxTTL != "" {
		t.MaxTTL = p.duration("INJECTOR_MAX_TTL", v.MaxTTL, 0)
	}
	if len(p.problems) > before {
		return
	}
	if t.Overlap > t.TTL/4 {
		p.fail("INJECTOR_OVERLAP", fmt.Sprintf("is %s, more than a quarter of INJECTOR_TTL", short(t.Overlap)), fmt.Sprintf("give at most %s", short(t.TTL/4)))
	}
	if t.MaxTTL != 0 && t.MaxTTL < t.TTL {
		p.fail("INJECTOR_MAX_TTL", fmt.Sprintf("is %s, shorter than INJECTOR_TTL", short(t.MaxTTL)), fmt.Sprintf("give at least %s, or 0 to keep a key for ever", short(t.TTL)))
	}
	if t.MaxTTL != 0 && !s.CanRotate {
		p.fail("INJECTOR_MAX_TTL", "asks for rotation, and a session token cannot mint another user key later", "give BALENA_USERNAME and BALENA_PASSWORD or BALENA_PASSWORD_FILE, or set it to 0")
	}
	if t.TTL < time.Minute {
		s.Warnings = append(s.Warnings, fmt.Sprintf("INJECTOR_TTL=%s is for trying it out: a slow answer can cost the key", short(t.TTL)))
	}
}

func (p *parser) places(s *settings, v variables) {
	s.OnDisk = !p.boolean("INJECTOR_REQUIRE_TMPFS", v.RequireTmpfs)
	s.Output = render.Output{Path: p.absolute("INJECTOR_OUTPUT", v.Output), Mode: p.mode(v.OutputMode), Owner: p.owner(v.OutputOwner)}
	s.StateDir = filepath.Join(filepath.Dir(s.Output.Path), ".injector")
	if v.StateDir != "" {
		s.StateDir = p.absolute("INJECTOR_STATE_DIR", v.StateDir)
	}
	if s.StateDir == filepath.Dir(s.Output.Path) {
		p.fail("INJECTOR_STATE_DIR", "is the output's directory, where the app can read", "give a directory of its own")
	}
	if v.SessionCache == "" {
		return
	}
	s.SessionCache = p.absolute("INJECTOR_SESSION_CACHE", v.SessionCache)
	if filepath.Dir(s.SessionCache) == filepath.Dir(s.Output.Path) {
		p.fail("INJECTOR_SESSION_CACHE", "lies in the output's directory, where the app could read it", "put it where only the injector can read, such as the state directory")
	}
}

func (p *parser) mode(text string) fs.FileMode {
	n, err := strconv.ParseUint(text, 8, 32)
	if err != nil || len(text) < 3 || n > 0o777 || n&0o400 == 0 || n&0o002 != 0 {
		p.fail("INJECTOR_OUTPUT_MODE", fmt.Sprintf("is %q", clip(text)), "give three or four octal digits with which the owner can read and others cannot write, such as 0440")
	}
	return fs.FileMode(n)
}

func (p *parser) owner(text string) render.Owner {
	if text == "" {
		return render.Keep
	}
	uid, gid, ok := strings.Cut(text, ":")
	id := func(s string) int {
		if s == "" {
			return -1
		}
		n, err := strconv.ParseUint(s, 10, 31)
		ok = ok && err == nil
		return int(n)
	}
	owner := render.Owner{UID: id(uid), GID: id(gid)}
	if !ok {
		p.fail("INJECTOR_OUTPUT_OWNER", fmt.Sprintf("is %q", clip(text)), "give numbers as uid:gid, such as 1000:1000 or :1000")
	}
	return owner
}

func (p *parser) process(s *settings, v variables) {
	s.InitTimeout = p.duration("INJECTOR_INIT_TIMEOUT", v.InitTimeout, time.Second)
	s.ShutdownDelay = p.duration("INJECTOR_SHUTDOWN_DELAY", v.ShutdownDelay, 0)
	s.ShutdownTimeout = p.duration("INJECTOR_SHUTDOWN_TIMEOUT", v.ShutdownTimeout, time.Second)
	if s.ShutdownDelay > 0 && s.ShutdownDelay >= s.ShutdownTimeout {
		p.fail("INJECTOR_SHUTDOWN_DELAY", "leaves no time to revoke before INJECTOR_SHUTDOWN_TIMEOUT", "raise the timeout, and the platform's own grace period above that")
	}
	s.KeepOnExit = !p.boolean("INJECTOR_REVOKE_ON_EXIT", v.RevokeOnExit)
	if s.Listen = v.Listen; s.Listen != "" {
		_, port, err := net.SplitHostPort(s.Listen)
		if _, e := net.LookupPort("tcp", port); err != nil || e != nil || port == "" {
			p.fail("INJECTOR_LISTEN", fmt.Sprintf("is %q", clip(s.Listen)), "give HOST:PORT or :PORT, such as :9300")
		}
	}
	if err := s.LogLevel.UnmarshalText([]byte(v.LogLevel)); err != nil {
		p.fail("INJECTOR_LOG_LEVEL", fmt.Sprintf("is %q", clip(v.LogLevel)), "give debug, info, warn or error")
	}
	s.LogJSON = strings.EqualFold(v.LogFormat, "json")
	if !s.LogJSON && !strings.EqualFold(v.LogFormat, "text") {
		p.fail("INJECTOR_LOG_FORMAT", fmt.Sprintf("is %q", clip(v.LogFormat)), "give text or json")
	}
}

// readFile reads a small file, with errors for people.
func readFile(path string) ([]byte, error) {
	info, err := os.Stat(path)
	if err == nil && !info.Mode().IsRegular() {
		err = errors.New("it is no regular file")
	}
	if err == nil && info.Size() > 1<<20 {
		err = errors.New("it is longer than 1 MiB")
	}
	var data []byte
	if err == nil {
		data, err = os.ReadFile(path)
	}
	if p, ok := errors.AsType[*fs.PathError](err); ok {
		err = p.Err
	}
	if err != nil {
		return nil, fmt.Errorf("file %s: %w", path, err)
	}
	return data, nil
}
