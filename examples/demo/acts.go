package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"syscall"
	"time"

	"github.com/balena-injector/injector/balena/balenatest"
)

// outage is how long the API is away in the act of that name.
const outage = 4 * time.Second

// play runs the acts one after the other.
func (d *demo) play(ctx context.Context) (err error) {
	say := d.story.say
	say("demo", "a stand-in for the balena API listens on %s; it has one user and no keys", d.url)
	if d.unlucky {
		if err := d.prepareAccidents(); err != nil {
			return err
		}
	}
	if err := d.injector("init").Run(); err != nil {
		return fmt.Errorf("init: %w", err)
	}
	if d.sidecar, err = start(d.injector("run")); err != nil {
		return err
	}
	defer func() { _ = d.sidecar.cmd.Process.Kill() }()

	reader := startApp(d)
	say("app", "starts, reads the token 20 times a second and asks the API with it who it is")
	gap, err := d.acts(ctx, reader)
	bad := reader.stop()
	if err != nil {
		return err
	}
	if d.unlucky {
		if err := d.accidents(ctx); err != nil {
			return err
		}
	}
	say("demo", "the app stops, then the sidecar gets SIGTERM, as in every orderly stop")
	if err := d.sidecar.end(ctx, syscall.SIGTERM); err != nil {
		return fmt.Errorf("the sidecar's end: %w", err)
	}
	return d.verdict(reader, bad, gap)
}

// acts lets things happen to the injector. It returns how long the app had no valid token after its key was deleted.
func (d *demo) acts(ctx context.Context, reader *app) (gap time.Duration, err error) {
	await, say := d.story.await, d.story.say
	if err := await(ctx, "the server accepts the adopted key"); err != nil {
		return 0, err
	}
	say("demo", "the API goes away for %.0f seconds", outage.Seconds())
	d.server.Fail(balenatest.Fault{Status: http.StatusServiceUnavailable, Until: time.Now().Add(outage), Match: notTheApps})
	if err := await(ctx, "recovered: could check that the key lives"); err != nil {
		return 0, err
	}
	say("app", "has not noticed: its key outlives an outage")
	if err := await(ctx, "extended the key"); err != nil {
		return 0, err
	}
	say("app", "has not noticed: the expiry moved, the token is the same")
	if err := errors.Join(await(ctx, "published"), await(ctx, "revoked a key")); err != nil {
		return 0, err
	}
	say("app", "has read the new token while the old one still worked")

	if gap, err = d.delete(ctx, reader); err != nil {
		return 0, err
	}
	say("demo", "the sidecar is killed, as by a crash, and started again")
	_ = d.sidecar.end(ctx, syscall.SIGKILL)
	if d.sidecar, err = start(d.injector("run")); err != nil {
		return 0, err
	}
	if err := await(ctx, "the server accepts the adopted key"); err != nil {
		return 0, err
	}
	say("app", "has not noticed: the same key, found in the journal")
	return gap, nil
}

// notTheApps keeps the app's own requests out of an outage, so that it can be told whether its token works.
func notTheApps(m balenatest.Match) bool { return m.Path != whoamiPath }

// delete has the app's key deleted, and waits until the app has another.
func (d *demo) delete(ctx context.Context, reader *app) (gap time.Duration, err error) {
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

// after is what to do next.
const after = `
What you saw: one file, always with a token that works, and no key left.
Next: README.md chooses the home for your app (Compose, Kubernetes, inside its image), and
docs/migrate.md takes an app there that has a static BALENA_TOKEN today. The injector is
bin/injector: "bin/injector help" lists what it can do, "bin/injector check" tries your account.
`

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
	fmt.Print(after)
	return nil
}
