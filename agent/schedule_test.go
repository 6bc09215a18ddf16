package agent_test

import (
	"os"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/balena-injector/injector/agent"
	"github.com/balena-injector/injector/balena/balenatest"
)

const (
	day  = 24 * time.Hour
	year = 365 * day
)

// TestLivesOfAllLengths has an extension, or the rotation in its place, half to two thirds of a TTL after the last one.
func TestLivesOfAllLengths(t *testing.T) {
	for _, c := range []struct {
		name       string
		ttl        time.Duration
		extensions int // rotations included; an agent looks up every 30 s, which makes long lives slow
		rotates    bool
	}{
		{"60 s", time.Minute, 12, true},
		{"5 m", 5 * time.Minute, 12, true},
		{"15 m", 15 * time.Minute, 12, true},
		{"1 h", time.Hour, 12, true},
		{"12 h", 12 * time.Hour, 6, true},
		{"7 d", 7 * day, 2, false},
		{"90 d", 90 * day, 2, false},
	} {
		if raceEnabled && c.ttl > day {
			continue // make test lives through them without the race detector
		}
		t.Run(c.name, func(t *testing.T) { liveOn(t, c.ttl, 0, c.extensions) })
		if c.rotates {
			t.Run(c.name+", rotating", func(t *testing.T) { liveOn(t, c.ttl, 3*c.ttl, c.extensions) })
		}
	}
}

func liveOn(t *testing.T, ttl, maxTTL time.Duration, extensions int) {
	inWorld(t, balenatest.Options{}, func(w *world) {
		w.inMemory()
		w.times = agent.Times{TTL: ttl, MaxTTL: maxTTL, Overlap: min(time.Minute, ttl/6), Check: max(ttl/12, time.Second)}
		l := w.run()
		w.published(time.Second)
		for range extensions * 40 { // two thirds of a TTL for each
			w.sleep(ttl / 60)
			w.wantGood()
			if w.server.Count("extend")+w.server.Count("mint") > extensions {
				break
			}
		}
		mints, moved := w.wantWindows(ttl)
		if mints+moved <= extensions || (mints > 1) != (maxTTL > 0) {
			t.Errorf("%d mints, %d extensions", mints, moved)
		}
		w.sleep(ttl / 10)
		w.wantGood()
		l.endWell()
	})
}

// wantWindows checks that each extension, and each mint but the first, came in its window after the one before.
func (w *world) wantWindows(ttl time.Duration) (mints, extensions int) {
	w.t.Helper()
	const seconds = 2 * time.Second // what whole seconds in Date headers cost, at both ends
	var last time.Time
	for _, r := range w.server.Requests() {
		if r.Kind != "mint" && r.Kind != "extend" {
			continue
		}
		if gap := r.At.Sub(last); !last.IsZero() && (gap < ttl/2-seconds || gap > ttl*2/3+seconds) {
			w.t.Errorf("TTL %v: %s after %v", ttl, r.Kind, gap)
		} else if !last.IsZero() && gap >= ttl {
			w.t.Errorf("TTL %v: %s past the expiry, after %v", ttl, r.Kind, gap)
		}
		if last = r.At; r.Kind == "mint" {
			mints++
		} else {
			extensions++
		}
	}
	return mints, extensions
}

// TestASuspendedMachineActsAtOnce wakes after two hours: the monotonic clock stood still, and the agent with it.
func TestASuspendedMachineActsAtOnce(t *testing.T) {
	for name, ttl := range map[string]time.Duration{"the key has expired": time.Hour, "the key is alive": 12 * time.Hour} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, balenatest.Options{}, func(w *world) {
				var asleep atomic.Int64
				w.wall = func() time.Time { return time.Now().Add(time.Duration(asleep.Load())) }
				w.times.TTL = ttl
				l := w.run()
				w.published(time.Second)
				for _, into := range []time.Duration{0, 10 * time.Second, 29 * time.Second} {
					w.untilRequest(6 * time.Minute) // then the agent has just begun a pause
					w.sleep(into)
					asleep.Add(int64(2 * time.Hour))
					w.server.ShiftClock(time.Duration(asleep.Load()))
					if took := w.untilRequest(time.Hour); took > 31*time.Second {
						t.Errorf("suspended %v into a pause: it did nothing for %v", into, took)
					}
					w.published(10 * time.Second)
				}
				w.sleep(time.Minute)
				l.wantReady(true)
				if n := w.server.Count("mint"); n != 1 {
					t.Errorf("%d mints", n)
				}
				l.endWell()
			})
		})
	}
}

// untilRequest waits for the next request, and returns how long that took.
func (w *world) untilRequest(within time.Duration) time.Duration {
	w.t.Helper()
	n := w.server.Count("")
	for waited := time.Duration(0); waited <= within; waited += 100 * time.Millisecond {
		if w.server.Count("") > n {
			return waited
		}
		w.sleep(100 * time.Millisecond)
	}
	w.t.Fatalf("no request within %v", within)
	return 0
}

// TestAMachineWithoutAClock starts with a wall clock that nothing has set, and again with one that is wrong in the other
// direction. The bubble's clock is the machine's, and starts with the year 2000: so the server's is what differs.
func TestAMachineWithoutAClock(t *testing.T) {
	for name, c := range map[string]struct{ truth, second time.Duration }{
		"1970, and it is 2026": {56 * year, 86 * year},
		"30 years ahead":       {-30*year + 30*day, -40 * year},
	} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, balenatest.Options{}, func(w *world) {
				w.server.ShiftClock(c.truth)
				w.random = func() float64 { return 0 } // no extension is due while it is stopped
				l := w.run()
				token := w.published(time.Second)
				w.liveThrough(5 * time.Hour)
				l.wantReady(true)
				l.handOver()
				w.wall = func() time.Time { return time.Now().Add(c.second) }
				w.sleep(5 * time.Minute)
				l = w.run()
				w.sleep(time.Second)
				l.wantReady(true)
				w.liveThrough(5 * time.Hour)
				if w.read() != token {
					t.Error("a clock declared the key dead")
				}
				if mints, extensions := w.wantWindows(w.times.TTL); mints != 1 || extensions < 14 {
					t.Errorf("%d mints and %d extensions in 10 hours", mints, extensions)
				}
				l.endWell()
			})
		})
	}
}

// liveThrough lets time pass, with a look at the token every minute.
func (w *world) liveThrough(d time.Duration) {
	w.t.Helper()
	for ; d > 0; d -= time.Minute {
		w.sleep(time.Minute)
		w.wantGood()
	}
}

// TestManyRotationsLeaveNothingBehind compares what the process holds after the first rotations and after thousands.
func TestManyRotationsLeaveNothingBehind(t *testing.T) {
	first, last := int64(100), int64(3000)
	if raceEnabled {
		first, last = 50, 500
	}
	inWorld(t, balenatest.Options{}, func(w *world) {
		w.inMemory()
		w.times = agent.Times{TTL: 10 * time.Minute, MaxTTL: 15 * time.Minute, Overlap: time.Minute, Check: 5 * time.Minute}
		l := w.run()
		w.published(time.Second)
		l.rotate(first)
		before := w.holds()
		l.rotate(last)
		after := w.holds()
		w.t.Logf("after %d rotations %+v, after %d %+v", first, before, last, after)
		if after.files > before.files+2 || after.goroutines > before.goroutines+4 {
			t.Errorf("descriptors: %d, then %d; goroutines: %d, then %d", before.files, after.files, before.goroutines, after.goroutines)
		}
		// What is kept of a rotation would be a key's record, some 500 bytes, or its name at least.
		if grown := after.heap - before.heap; grown > 128<<10+100*(last-first) {
			t.Errorf("the heap grows by %d bytes with each rotation", grown/(last-first))
		}
		l.endWell()
	})
}

// inMemory moves the world's directory to where it is for real: a long life writes too often to wait for a disk.
func (w *world) inMemory() {
	dir, err := os.MkdirTemp("/dev/shm", "injector-world-")
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { _ = os.RemoveAll(dir) })
	w.dir = dir
}

// rotate lets n rotations happen, counted from the start.
func (l *life) rotate(n int64) {
	for passed := 0; l.agent.Status().Counts.Rotations < n; passed++ {
		l.w.sleep(time.Minute)
		l.w.wantGood()
		if passed%1000 == 0 {
			l.w.forget()
		}
		if l.w.t.Failed() {
			l.w.t.FailNow()
		}
	}
}

// forget drops what the world itself keeps of the past: the requests, once their pace is checked, and the log.
func (w *world) forget() {
	w.checkPace()
	w.server.Forget()
	if strings.Contains(w.log.String(), "eyJhb") {
		w.t.Error("the log shows a session")
	}
	w.log.mu.Lock()
	w.log.buf.Reset()
	w.log.mu.Unlock()
}

// held is what a process holds.
type held struct {
	files, goroutines int
	heap              int64
}

// holds measures it at rest, without the credentials that the stand-in remembers.
func (w *world) holds() held {
	w.t.Helper()
	w.forget()
	files, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		w.t.Fatal(err)
	}
	h := held{files: len(files), goroutines: runtime.NumGoroutine()}
	bearers := int64(0)
	for _, b := range w.server.Bearers() {
		bearers += int64(len(b)) + 64 // and its place in the map
	}
	runtime.GC()
	runtime.GC() // what a pool keeps for one more round
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	h.heap = int64(m.HeapAlloc) - bearers
	return h
}
