// Command demo shows the injector's whole life in half a minute, against the stand-in, with short
// times: init, run, an app that reads the file all the while, an extension, a rotation with
// overlap, an outage, a key deleted "in the dashboard", a crash, and a stop. It fails if a key is
// left or the app ever read a bad token.
//
// With -accidents it goes on for two minutes with what operators have to be told of, and with -listen the injector has its
// metrics there: the project's tests let Prometheus watch that life.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/balena-injector/injector/balena/balenatest"
)

// The times of the demo; those of real life are a few hundred times as long.
const (
	ttl      = 12 * time.Second
	maxTTL   = 20 * time.Second
	overlap  = 3 * time.Second
	interval = 3 * time.Second // between two checks that the key lives
	patience = time.Minute     // for the acts
	calamity = 3 * time.Minute
)

func main() {
	d := &demo{story: newStory(os.Stdout)}
	flag.StringVar(&d.listen, "listen", "", "the TCP `address` of the injector's metrics; none if empty")
	flag.BoolVar(&d.unlucky, "accidents", false, "go on with what operators have to be told of")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := d.run(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "demo:", err)
		os.Exit(1)
	}
}

// demo is the stage: a server, a directory in memory and the injector's binary.
type demo struct {
	server *balenatest.Server
	url    string
	dir    string
	binary string
	onDisk bool
	story  *story

	listen  string       // of the injector's metrics; empty: nowhere
	unlucky bool         // accidents happen
	extra   []string     // variables of the injector
	deaf    *atomic.Bool // who is told of keys does not listen
	sidecar *process
}

func (d *demo) run(ctx context.Context) (err error) {
	d.server = balenatest.New(balenatest.Options{})
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	d.url = "http://" + l.Addr().String()
	api := &http.Server{Handler: d.server, ReadHeaderTimeout: 5 * time.Second}
	go func() { _ = api.Serve(l) }()
	defer func() { _ = api.Close() }()
	if err := d.makeRoom(); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(d.dir)) }()
	d.story.say("demo", "building the injector: %s", first)
	if d.binary, err = build(ctx); err != nil {
		return err
	}
	limit := patience
	if d.unlucky {
		limit += calamity
	}
	ctx, cancel := context.WithTimeoutCause(ctx, limit, errors.New("the demo took too long"))
	defer cancel()
	return d.play(ctx)
}

// first is what somebody may want to know who waits for the first build.
const first = "a moment; half a minute the first time"

// makeRoom makes a directory, in memory where the system has a place for it.
func (d *demo) makeRoom() (err error) {
	if d.dir, err = os.MkdirTemp("/dev/shm", "injector-demo-"); err == nil {
		return nil
	}
	d.onDisk = true
	d.dir, err = os.MkdirTemp("", "injector-demo-")
	return err
}

// build compiles the real binary. It is not run from the directory in memory, which may not
// allow that.
func build(ctx context.Context) (string, error) {
	binary, err := filepath.Abs(filepath.Join("bin", "injector"))
	if err != nil {
		return "", err
	}
	cmd := exec.CommandContext(ctx, "sh", "build.sh", binary)
	cmd.Stderr = os.Stderr
	return binary, cmd.Run()
}

// injector returns the command, configured as a user would.
func (d *demo) injector(command string) *exec.Cmd {
	cmd := exec.Command(d.binary, command)
	u := d.server.DefaultUser()
	cmd.Env = []string{
		"BALENA_API_URL=" + d.url, "BALENA_USERNAME=" + u.Name, "BALENA_PASSWORD=" + u.Password,
		"INJECTOR_OUTPUT=" + d.token(), "INJECTOR_TTL=" + ttl.String(), "INJECTOR_MAX_TTL=" + maxTTL.String(),
		"INJECTOR_OVERLAP=" + overlap.String(), "INJECTOR_CHECK_INTERVAL=" + interval.String(), "INJECTOR_NAME=demo",
		"INJECTOR_LOG_FORMAT=json", fmt.Sprintf("INJECTOR_REQUIRE_TMPFS=%v", !d.onDisk),
	}
	if command != "init" {
		cmd.Env = append(cmd.Env, "INJECTOR_LISTEN="+d.listen)
	}
	if command == "run" { // a stop without the API is over while its key lives
		cmd.Env = append(cmd.Env, "INJECTOR_SHUTDOWN_TIMEOUT=2s")
	}
	cmd.Env = append(cmd.Env, d.extra...)
	cmd.Stderr = d.story.listen(command)
	return cmd
}

// process is an injector that runs.
type process struct {
	cmd   *exec.Cmd
	ended chan error
}

func start(cmd *exec.Cmd) (*process, error) {
	p := &process{cmd: cmd, ended: make(chan error, 1)}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	go func() { p.ended <- cmd.Wait() }()
	return p, nil
}

// end sends a signal and waits for the end.
func (p *process) end(ctx context.Context, sig os.Signal) error {
	if err := p.cmd.Process.Signal(sig); err != nil {
		return err
	}
	select {
	case err := <-p.ended:
		return err
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func (d *demo) token() string { return filepath.Join(d.dir, "balena-token") }
