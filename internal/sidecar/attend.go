package sidecar

import (
	"context"
	"path/filepath"
	"slices"
	"time"

	"github.com/balena-injector/injector/render"
)

const (
	// attendEvery is how often the ground is looked at, for all keys.
	attendEvery = 30 * time.Second
	// fewOutputs is up to how many keys' outputs are all looked at every half a minute, too: there are file systems that tell
	// of no event.
	fewOutputs = 50
	// clockJump is how far the clocks may drift apart meanwhile without a machine that slept or a clock that was set.
	clockJump = time.Second
)

// attend looks, once for all keys, after what each agent would have to look at again and again: the files, their
// directories, and the clocks, until ctx is done. Nobody waits for its end: a file system may hang for ever.
func (a *App) attend(ctx context.Context) {
	byPath, dirs := map[string]*keeper{}, []string(nil)
	for _, k := range a.keepers {
		for _, path := range k.settings.Paths() {
			byPath[path] = k
			dirs = append(dirs, filepath.Dir(path))
		}
	}
	slices.Sort(dirs)
	if dirs = slices.Compact(dirs); len(dirs) > 0 {
		touched := func(path string) {
			if k := byPath[path]; k != nil {
				k.lookIfDamaged()
			}
		}
		all := func() {
			for _, k := range a.keepers {
				k.lookIfDamaged()
			}
		}
		go render.WatchDirs(ctx, a.log, dirs, len(a.keepers) > fewOutputs, touched, all)
	}
	go attendGround(ctx, a.surveyor(), func() {
		for _, k := range a.keepers {
			k.agent().LookAgain()
		}
	})
}

// lookIfDamaged makes the agent look at its outputs if they are not what was published.
func (k *keeper) lookIfDamaged() {
	if k.files.Damage() != nil {
		k.agent().LookAgain()
	}
}

// ground is what all agents rely on while they sleep: how the clocks run, and which state directory it is.
type ground struct {
	mono     time.Duration // since the process looked first, by the clock that stops while the machine sleeps
	wall     time.Time     // which may be set; without a monotonic part
	renewals int           // how often there was another state directory
}

// disturbed reports whether a clock was set or the machine slept since before, or the state directory is another one.
func (g ground) disturbed(before ground) bool {
	return (g.wall.Sub(before.wall)-(g.mono-before.mono)).Abs() >= clockJump || g.renewals != before.renewals
}

// surveyor returns what tells the ground now.
func (a *App) surveyor() func() ground {
	began, renewals := time.Now(), 0
	return func() ground {
		if n, err := a.state.Follow(); err == nil {
			renewals = n
		}
		return ground{mono: time.Since(began), wall: time.Now().Round(0), renewals: renewals}
	}
}

// attendGround calls wake when the ground that survey sees was disturbed.
func attendGround(ctx context.Context, survey func() ground, wake func()) {
	tick := time.NewTicker(attendEvery)
	defer tick.Stop()
	before := survey()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if now := survey(); now.disturbed(before) {
			before = now
			wake()
		}
	}
}
