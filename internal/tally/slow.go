package tally

import (
	"math"
	"runtime"
	"sync"
	"syscall"
	"time"
)

// Slow stretches a time limit of a test by as much as this machine is slower than two cores that have nothing else to
// do, as in a container with half a core. Limits are for promises in seconds; how much work something is, a test measures
// in processor time.
func Slow(limit time.Duration) time.Duration { return time.Duration(float64(limit) * slowness()) }

// slowness measures once: it keeps two threads busy for a while, and looks how much processor time they were given.
var slowness = sync.OnceValue(func() float64 {
	const cores, span = 2, 200 * time.Millisecond
	before, began := used(), time.Now()
	var all sync.WaitGroup
	for range cores {
		all.Go(func() {
			runtime.LockOSThread()
			for time.Since(began) < span {
			}
		})
	}
	all.Wait()
	given := float64(used()-before) / float64(time.Since(began))
	return max(1, math.Ceil(cores/max(given, 0.1)-0.3))
})

// used is the processor time of this process.
func used() time.Duration {
	var r syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &r) != nil {
		return 0
	}
	return time.Duration(r.Utime.Nano() + r.Stime.Nano())
}
