package agent_test

import (
	"context"
	"testing"
	"time"

	"github.com/balena-injector/injector/agent"
	"github.com/balena-injector/injector/balena/balenatest"
	"github.com/balena-injector/injector/turn"
)

// TestAStopWhileFilesHang has adopted keys whose journals wait for goroutines that hang: a stop revokes them all the same.
func TestAStopWhileFilesHang(t *testing.T) {
	inWorld(t, balenatest.Options{}, func(w *world) {
		h := w.household(12)
		h.start()
		h.until(2*time.Minute, "a token", h.good)
		h.mustEnd(agent.ErrHandOver)
		h.workers = turn.NewWorkers(1)
		defer h.workers.Close()
		go func() { _ = h.workers.Do(context.Background(), func() { time.Sleep(time.Minute) }) }()
		w.sleep(time.Millisecond)
		h.start()
		w.sleep(100 * time.Millisecond)
		h.mustEnd(nil)
		w.wantLive(0)
		w.server.Forget()
		w.sleep(time.Minute)
	})
}

// TestARefusedExtensionOfMany is tried again and again, by each key for itself, and ever more seldom.
func TestARefusedExtensionOfMany(t *testing.T) {
	inWorld(t, balenatest.Options{}, func(w *world) {
		h := w.household(5)
		h.start()
		h.until(2*time.Minute, "a token", h.good)
		h.live(20*time.Minute, time.Minute)
		w.server.Fail(balenatest.Fault{Kind: "extend", Status: 400})
		h.live(15*time.Minute, time.Minute)
		w.server.Forget()
		w.sleep(10 * time.Minute)
		if n := len(w.server.Requests()); n > 5*18 { // a key alone sends 13
			t.Errorf("%d requests of five keys in ten minutes: %v", n, w.server.Counts())
		}
		w.server.Heal()
		h.until(5*time.Minute, "good again", h.good)
		h.mustEnd(nil)
		w.wantLive(0)
		w.server.Forget()
	})
}

// TestSettlingGoesOnByItself has mints that a crash has cut, journals without secrets, and a server that refuses requests about
// many: each key is found by itself, and revoked.
func TestSettlingGoesOnByItself(t *testing.T) {
	inWorld(t, balenatest.Options{}, func(w *world) {
		h := w.household(5)
		for _, s := range h.stores {
			s.onDisk = true
		}
		w.server.Fail(balenatest.Fault{Kind: "mint", After: true, Hang: true, Times: 5})
		h.start()
		w.sleep(10 * time.Second)
		h.mustEnd(agent.ErrHandOver)
		w.server.Heal()
		w.server.Fail(balenatest.Fault{Status: 400, Match: batchedRead})
		h.start()
		h.until(5*time.Minute, "a token", h.good)
		w.sleep(10 * time.Minute)
		w.wantLive(5)
		h.mustEnd(nil)
		w.wantLive(0)
		w.server.Forget()
	})
}

// batchedRead matches lists and look-ups of several names.
func batchedRead(m balenatest.Match) bool { return m.Several }
