//go:build crash

// Package crashpoint marks the places in file work where a crash would leave something half
// done. With the tag crash it counts them and, at the one that CRASH_AT names (from 1), kills
// the process as SIGKILL does; with CRASH_WITH=term it asks it to stop instead, and with
// CRASH_WITH=panic it panics. CRASH_LOG names a file that gets a line for each.
// CRASH_SLOW is how long each write takes until it has reached the disk.
package crashpoint

import (
	"fmt"
	"os"
	"strconv"
	"sync"
	"syscall"
	"time"
)

var (
	mu    sync.Mutex
	count int
)

// Here is one place.
func Here(name string) {
	if slow, err := time.ParseDuration(os.Getenv("CRASH_SLOW")); err == nil && name == "before syncing" {
		time.Sleep(slow)
	}
	mu.Lock()
	defer mu.Unlock()
	count++
	if path := os.Getenv("CRASH_LOG"); path != "" {
		if f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o600); err == nil {
			_, _ = fmt.Fprintln(f, count, name)
			_ = f.Close()
		}
	}
	if at, err := strconv.Atoi(os.Getenv("CRASH_AT")); err == nil && at == count {
		crash(os.Getenv("CRASH_WITH"))
	}
}

func crash(how string) {
	switch how {
	case "term":
		_ = syscall.Kill(os.Getpid(), syscall.SIGTERM)
	case "panic":
		panic("crash point")
	default:
		_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
		select {} // until it takes effect
	}
}
