package agent_test

import (
	"testing"
	"time"

	"github.com/balena-injector/injector/balena/balenatest"
)

// TestInitMakesAKeyThatSoonExpires has a pod that is deleted between init and the sidecar, and then ones whose sidecar
// comes sooner or later.
func TestInitMakesAKeyThatSoonExpires(t *testing.T) {
	for name, c := range map[string]struct {
		after   time.Duration
		deleted bool // by somebody, in the meantime
		never   bool
	}{
		"the pod is deleted":               {never: true},
		"run follows at once":              {},
		"run follows in a while":           {after: 10 * time.Minute},
		"run follows after the expiry":     {after: 20 * time.Minute},
		"the key is dead when run follows": {after: 5 * time.Minute, deleted: true},
	} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, balenatest.Options{}, func(w *world) {
				if err := w.init(); err != nil {
					t.Fatal(err)
				}
				live := w.server.Live()
				if left := time.Until(live[0].Expiry); left > 15*time.Minute || left < 14*time.Minute {
					t.Errorf("the key of init lives for %v", left)
				}
				if c.never {
					w.sleep(15 * time.Minute)
					w.wantLive(0)
					return
				}
				w.sleep(c.after)
				if c.deleted {
					w.server.DeleteKey(live[0].ID)
				}
				l := w.run()
				w.sleep(2 * time.Second)
				w.wantGood()
				l.wantReady(true)
				live = w.server.Live()
				if left := time.Until(live[0].Expiry); len(live) != 1 || left < 55*time.Minute {
					t.Errorf("%d keys, the first for %v", len(live), left)
				}
				if mints := w.server.Count("mint"); c.deleted != (mints == 2) {
					t.Errorf("%d mints", mints)
				}
				l.endWell()
			})
		})
	}
}

// TestAShortTTLIsKept has a TTL that is shorter than what init makes.
func TestAShortTTLIsKept(t *testing.T) {
	inWorld(t, balenatest.Options{}, func(w *world) {
		w.times.TTL, w.times.Overlap = 10*time.Minute, time.Minute
		if err := w.init(); err != nil {
			t.Fatal(err)
		}
		if left := time.Until(w.server.Live()[0].Expiry); left > 10*time.Minute {
			t.Errorf("it lives for %v", left)
		}
		w.run().endWell()
	})
}
