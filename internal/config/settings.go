package config

import (
	"log/slog"
	"net"
	"net/url"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/balena-injector/injector/balena"
	"github.com/balena-injector/injector/render"
)

// Settings is the configuration with a meaning. It never changes.
type Settings struct {
	Environ  Environ // what it was read from
	API      balena.Config
	Accounts []*Account
	Keys     []Key
	Files    []string // of credentials, to be watched

	Functions    render.Functions // for templates
	OnDisk       bool             // outputs may lie on a disk
	StateDir     string
	SessionCache string // a file; empty: none

	InitTimeout     time.Duration
	ShutdownDelay   time.Duration
	ShutdownTimeout time.Duration
	KeepOnExit      bool
	PerMinute       int            // requests of an account
	KillAfter       time.Duration  // when a child that does not end is ended by force
	RestartChild    bool           // at a rotation
	SignalChild     syscall.Signal // at a rotation; 0: none
	Listen          string         // a TCP address; empty: none
	LogLevel        slog.Level
	LogJSON         bool
	Warnings        []string // for the log
}

// Several reports whether keys have names.
func (s Settings) Several() bool { return len(s.Keys) > 0 && s.Keys[0].Name != "" }

// Options say how to read the environment. The zero value is for a sidecar.
type Options struct {
	Version      string // of this program, for servers
	Supervising  bool   // the app is a child, which needs no file
	WithoutFiles bool   // templates and commands may be wrong or gone: only where outputs go matters
}

// Read reads the environment. The error is Problems, with all of them at once; the Settings are then as far as they
// could be read.
func Read(env Environ, o Options) (Settings, error) {
	p := &parser{env: env, Options: o}
	p.scope = p.of("")
	s := p.all()
	if len(p.problems) > 0 {
		return s, p.problems
	}
	return s, nil
}

// all reads everything.
func (p *parser) all() (s Settings) {
	s.Environ = p.env
	v := read[variables](p.of(""))
	keys := p.keyNames(v.Keys)
	p.problems = append(p.problems, p.unknownVariables(keys)...)
	p.texts(keys)
	p.nearMisses(&s, keys)
	p.api(&s, v)
	p.process(&s, v)
	p.templates(&s, v)
	p.notForAll(keys)
	for _, name := range keys {
		p.scope = p.of(name)
		kv := read[keyVariables](p.scope)
		k := Key{Name: name, Account: p.account(&s)}
		p.key(&k, kv)
		p.canMint(k)
		if warning := p.times(&k, kv); warning != "" {
			s.Warnings = append(s.Warnings, warning)
		}
		p.outputs(&s, &k, kv)
		p.notify(&k, kv)
		k.Variables = p.tokenVariables(kv.TokenVariables)
		s.Keys = append(s.Keys, k)
	}
	p.scope = p.of("")
	p.places(&s, v)
	if p.Supervising {
		p.child(&s)
	}
	return s
}

func (p *parser) api(s *Settings, v variables) {
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
	s.API.UserAgent = "balena-token-injector/" + p.Version
	if v.CAFile == "" {
		return
	}
	if p.absolute("INJECTOR_CA_FILE", v.CAFile); !filepath.IsAbs(v.CAFile) {
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
		text := p.env.Get(name)
		u, err := url.Parse(text)
		if err != nil || u.Host == "" {
			u, err = url.Parse("http://" + text)
		}
		if text != "" && (err != nil || u.Hostname() == "") {
			p.fail(name, "is not a proxy's URL", "give http://host:port, or unset it")
		}
	}
}

func (p *parser) process(s *Settings, v variables) {
	s.InitTimeout = p.duration("INJECTOR_INIT_TIMEOUT", v.InitTimeout, time.Second)
	s.ShutdownDelay = p.duration("INJECTOR_SHUTDOWN_DELAY", v.ShutdownDelay, 0)
	s.ShutdownTimeout = p.duration("INJECTOR_SHUTDOWN_TIMEOUT", v.ShutdownTimeout, time.Second)
	if s.ShutdownDelay > 0 && s.ShutdownDelay >= s.ShutdownTimeout {
		p.fail("INJECTOR_SHUTDOWN_DELAY", "leaves no time to revoke before INJECTOR_SHUTDOWN_TIMEOUT",
			"raise the timeout, and the platform's own grace period above that")
	}
	s.KeepOnExit = !p.boolean("INJECTOR_REVOKE_ON_EXIT", v.RevokeOnExit)
	if s.Listen = v.Listen; s.Listen != "" {
		_, port, err := net.SplitHostPort(s.Listen)
		if _, e := net.LookupPort("tcp", port); err != nil || e != nil || port == "" {
			p.fail("INJECTOR_LISTEN", "is not an address", "give HOST:PORT or :PORT, such as :22536")
		}
	}
	s.PerMinute = p.number("INJECTOR_REQUESTS_PER_MINUTE", v.PerMinute, 10, 10000)
	s.KillAfter = p.duration("INJECTOR_KILL_AFTER", v.KillAfter, 0)
	p.rotation(s, v.OnRotation)
	if err := s.LogLevel.UnmarshalText([]byte(v.LogLevel)); err != nil {
		p.fail("INJECTOR_LOG_LEVEL", "is not a level", "give debug, info, warn or error")
	}
	s.LogJSON = strings.EqualFold(v.LogFormat, "json")
	if !s.LogJSON && !strings.EqualFold(v.LogFormat, "text") {
		p.fail("INJECTOR_LOG_FORMAT", "is not a format", "give text or json")
	}
}
