package sidecar

import (
	"context"
	"path/filepath"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/balena-injector/injector/render"
)

const (
	// attendEvery is how often the machine's clocks and the state directory are looked at, for all keys.
	attendEvery = 30 * time.Second
	// fewOutputs is up to how many keys' outputs are all looked at every half a minute, too: there are file systems that tell
	// of no event.
	fewOutputs = 50
	// clockJump is how far the clocks may drift apart meanwhile without a machine that slept or a clock that was set.
	clockJump = time.Second
)

// attend looks, once for all keys, after what each agent would have to look at again and again: the files, their
// directories, and the clocks.
func (a *App) attend(ctx context.Context, group *errgroup.Group) {
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
		group.Go(func() error {
			render.WatchDirs(ctx, a.log, dirs, len(a.keepers) > fewOutputs, touched, all)
			return nil
		})
	}
	group.Go(func() error { a.attendClocks(ctx); return nil })
}

// lookIfDamaged makes the agent look at its outputs if they are not what was published.
func (k *keeper) lookIfDamaged() {
	if k.files.Damage() != nil {
		k.agent().LookAgain()
	}
}

// attendClocks wakes all agents when a clock was set, the machine slept, or the state directory is another one.
func (a *App) attendClocks(ctx context.Context) {
	tick := time.NewTicker(attendEvery)
	defer tick.Stop()
	renewals, _ := a.state.Follow()
	began, wall := time.Now(), time.Now().Round(0)
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		passed := time.Now().Round(0).Sub(wall) - time.Since(began)
		now, err := a.state.Follow()
		if passed.Abs() < clockJump && (err != nil || now == renewals) {
			continue
		}
		if err == nil {
			renewals = now
		}
		began, wall = time.Now(), time.Now().Round(0)
		for _, k := range a.keepers {
			k.agent().LookAgain()
		}
	}
}
