// Command demo shows the injector's whole life in half a minute, against the stand-in, with short
// times: init, run, an app that reads the file all the while, an extension, a rotation with
// overlap, a key deleted "in the dashboard", and a stop. It fails if a key is left or the app
// ever read a bad token.
package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
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
	patience = 50 * time.Second
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx); err != nil {
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
}

func run(ctx context.Context) (err error) {
	d := &demo{server: balenatest.New(balenatest.Options{}), story: newStory(os.Stdout)}
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
	d.story.say("demo", "building the injector")
	if d.binary, err = build(ctx); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeoutCause(ctx, patience, errors.New("the demo took too long"))
	defer cancel()
	return d.play(ctx)
}

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
	cmd.Stderr = d.story.listen(command)
	return cmd
}

func (d *demo) token() string { return filepath.Join(d.dir, "balena-token") }

// play runs the acts one after the other.
func (d *demo) play(ctx context.Context) error {
	say := d.story.say
	say("demo", "a stand-in for the balena API listens on %s; it has one user and no keys", d.url)
	if err := d.injector("init").Run(); err != nil {
		return fmt.Errorf("init: %w", err)
	}
	sidecar := d.injector("run")
	if err := sidecar.Start(); err != nil {
		return err
	}
	ended := make(chan error, 1)
	go func() { ended <- sidecar.Wait() }()
	defer func() { _ = sidecar.Process.Kill() }()

	reader := startApp(d)
	say("app", "starts, reads the token 20 times a second and asks the API with it who it is")
	gap, err := d.acts(ctx, reader)
	bad := reader.stop()
	if err != nil {
		return err
	}
	say("demo", "the app stops, then the sidecar gets SIGTERM")
	if err := sidecar.Process.Signal(syscall.SIGTERM); err != nil {
		return err
	}
	select {
	case err = <-ended:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	if err != nil {
		return fmt.Errorf("the sidecar's end: %w", err)
	}
	return d.verdict(reader, bad, gap)
}

// acts waits for what is to happen, and lets the accident happen. It returns how long the app
// had no valid token after that.
func (d *demo) acts(ctx context.Context, reader *app) (gap time.Duration, err error) {
	for _, wait := range []string{"extended the key", "published", "revoked a key"} {
		if err := d.story.await(ctx, wait); err != nil {
			return 0, err
		}
	}
	live := d.server.Live()
	if len(live) != 1 {
		return 0, fmt.Errorf("%d keys are live after the rotation, not 1", len(live))
	}
	reader.expectGap()
	deleted := time.Now()
	d.server.DeleteKey(live[0].ID)
	d.story.say("demo", "somebody deletes the key %s in the dashboard", live[0].Name)
	if err := d.story.await(ctx, "published"); err != nil {
		return 0, err
	}
	if err := reader.awaitGood(ctx); err != nil {
		return 0, err
	}
	return time.Since(deleted), nil
}

func (d *demo) verdict(reader *app, bad int, gap time.Duration) error {
	live := d.server.Live()
	_, err := os.Stat(d.token())
	fmt.Printf("\nreads: %d, with %d different tokens\nbad reads: %d\ngap after the deletion: %.1f s (at most %.0f s: the check interval "+
		"and a second)\nlive keys: %d\ntoken file left: %v\nrequests: %v\n", reader.reads, len(reader.tokens), bad, gap.Seconds(),
		(interval + time.Second).Seconds(), len(live), err == nil, d.story.requests(d.server))
	switch {
	case bad != 0:
		return fmt.Errorf("%d bad reads; the first: %s", bad, reader.firstBad)
	case len(live) != 0:
		return fmt.Errorf("%d keys were left", len(live))
	case gap > interval+time.Second:
		return fmt.Errorf("the gap lasted %v", gap)
	case len(reader.tokens) != 3:
		return fmt.Errorf("the app saw %d tokens, not 3: the first, the rotated, the replacement", len(reader.tokens))
	case err == nil:
		return errors.New("the token file was left")
	}
	return nil
}
