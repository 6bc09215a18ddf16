package main

import (
	"os"
	"runtime"
	"runtime/debug"
)

// fewKeys is up to how many keys one processor is enough for: they wait for the server nearly all the time.
const fewKeys = 50

// memoryLimit is what so many keys need, and as much more that garbage is not collected all the time. Many keys are
// looked after by several threads.
func memoryLimit(keys int) int64 {
	if keys <= fewKeys {
		return 6<<20 + int64(keys)*(22<<10)
	}
	return 12<<20 + int64(keys)*(11<<10)
}

// beThrifty makes the garbage collector thrifty, and the scheduler: what this program holds is small, and its users count
// megabytes and milliseconds. With one processor an idle injector wakes one thread where it would wake several. GOGC,
// GOMEMLIMIT and GOMAXPROCS still win.
func beThrifty(keys int) {
	switch {
	case os.Getenv("GOMAXPROCS") != "":
	case keys <= fewKeys:
		runtime.GOMAXPROCS(1)
	default:
		runtime.SetDefaultGOMAXPROCS()
	}
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(50)
	}
	if os.Getenv("GOMEMLIMIT") == "" {
		debug.SetMemoryLimit(memoryLimit(keys))
	}
}
