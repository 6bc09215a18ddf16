package main

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/balena-injector/injector/balena/balenatest"
)

// accident is something that operators have to be told of.
type accident struct {
	says  string
	begin func() error
	lasts time.Duration
	end   func() error
}

// prepareAccidents gives the injector what can break: a password in a file, a template, and somebody who is to be told.
func (d *demo) prepareAccidents() error {
	u := d.server.DefaultUser()
	if err := os.WriteFile(d.path("password"), []byte(u.Password), 0o600); err != nil {
		return err
	}
	if err := os.WriteFile(d.path("app.conf.tmpl"), []byte(goodTemplate), 0o600); err != nil {
		return err
	}
	deaf := &atomic.Bool{}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	d.deaf = deaf
	told := &http.Server{ReadHeaderTimeout: time.Second, Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if deaf.Load() {
			w.WriteHeader(http.StatusInternalServerError)
		}
	})}
	go func() { _ = told.Serve(l) }()
	d.extra = []string{
		"BALENA_PASSWORD=", "BALENA_PASSWORD_FILE=" + d.path("password"),
		"INJECTOR_TEMPLATES=" + d.path("app.conf.tmpl") + ":" + d.path("app.conf"),
		"INJECTOR_NOTIFY_URL=http://" + l.Addr().String() + "/reload",
	}
	return nil
}

func (d *demo) path(name string) string { return filepath.Join(d.dir, name) }

const (
	goodTemplate   = "token = {{ .Token }}\n"
	brokenTemplate = "token = {{ .Tokn }}\n"
)

// accidents happen one after the other, each for long enough that an alert for it fires where a minute of its rules is a second.
func (d *demo) accidents(ctx context.Context) error {
	d.story.say("demo", "accidents begin")
	second, err := d.startExec()
	if err != nil {
		return err
	}
	for _, a := range d.misfortunes(ctx) {
		d.story.say("demo", "accident: %s, for %.0f seconds", a.says, a.lasts.Seconds())
		if err := a.begin(); err != nil {
			return err
		}
		select {
		case <-time.After(a.lasts):
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		if err := a.end(); err != nil {
			return err
		}
	}
	if err := second.end(ctx, syscall.SIGTERM); err != nil {
		d.story.say("demo", "exec ended: %v", err) // its command was ended by the signal
	}
	return nil
}

func (d *demo) misfortunes(ctx context.Context) []accident {
	write := func(name, text string) func() error {
		return func() error { return os.WriteFile(d.path(name), []byte(text), 0o600) }
	}
	heal := func() error { d.server.Heal(); return nil }
	away := func() error {
		d.server.Fail(balenatest.Fault{Status: http.StatusServiceUnavailable})
		return nil
	}
	return []accident{
		{"a template with a mistake in it", write("app.conf.tmpl", brokenTemplate), 6 * time.Second, write("app.conf.tmpl", goodTemplate)},
		{"somebody changes the password, and not the file", write("password", "wrong"), 5 * time.Second,
			write("password", d.server.DefaultUser().Password)},
		{"the key is deleted, and the app cannot be told of the next", d.deleteKey(ctx), 10 * time.Second,
			func() error { d.deaf.Store(false); return nil }},
		{"the API is away for longer than a key lives", away, 25 * time.Second, heal},
		{"and back", func() error { return nil }, 10 * time.Second, func() error { return nil }},
		{"the API is away when the sidecar is stopped", away, time.Second, d.stopInVain(ctx)},
		{"the next start", heal, 10 * time.Second, func() error { return nil }},
	}
}

// deleteKey deletes the sidecar's key.
func (d *demo) deleteKey(ctx context.Context) func() error {
	return func() error {
		d.deaf.Store(true)
		d.story.forget()
		for _, k := range d.server.Live() {
			if d.isSidecars(k) {
				d.server.DeleteKey(k.ID)
			}
		}
		return d.story.await(ctx, "published")
	}
}

func (d *demo) isSidecars(k balenatest.Key) bool {
	token, err := os.ReadFile(d.token())
	return err == nil && k.Secret == string(token)
}

// stopInVain stops the sidecar, which cannot revoke, and starts it again.
func (d *demo) stopInVain(ctx context.Context) func() error {
	return func() (err error) {
		if err := d.sidecar.end(ctx, syscall.SIGTERM); err == nil {
			return fmt.Errorf("a stop without the API ended with 0")
		}
		d.sidecar, err = start(d.injector("run"))
		return err
	}
}

// startExec runs an app that reads a variable beside the sidecar, with its metrics one port above.
func (d *demo) startExec() (*process, error) {
	host, port, err := net.SplitHostPort(d.listen)
	if err != nil {
		return nil, fmt.Errorf("-accidents needs -listen: %w", err)
	}
	number, err := strconv.Atoi(port)
	if err != nil {
		return nil, err
	}
	cmd := d.injector("exec")
	cmd.Args = append(cmd.Args, "--", "sleep", "600")
	listen := net.JoinHostPort(host, strconv.Itoa(number+1))
	cmd.Env = append(cmd.Env, "PATH="+os.Getenv("PATH"), "INJECTOR_LISTEN="+listen, "INJECTOR_OUTPUT=", "INJECTOR_TEMPLATES=",
		"INJECTOR_NOTIFY_URL=", "INJECTOR_NAME=demo-exec", "INJECTOR_STATE_DIR="+d.path("exec"))
	return start(cmd)
}
