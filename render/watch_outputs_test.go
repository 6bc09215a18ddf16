package render

import (
	"bytes"
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fsnotify/fsnotify"
)

// told is what a WatchDirs has told.
type told struct {
	mu    sync.Mutex
	paths map[string]int
	all   int
}

func (w *told) count(path string) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.paths[path]
}

// watchDirs watches until the test ends.
func watchDirs(t *testing.T, dirs ...string) *told {
	t.Helper()
	w := &told{paths: map[string]int{}}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		WatchDirs(ctx, slog.New(slog.DiscardHandler), dirs, true, func(path string) {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.paths[path]++
		}, func() {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.all++
		})
	}()
	t.Cleanup(func() { cancel(); <-done })
	time.Sleep(200 * time.Millisecond) // until they are watched
	return w
}

func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for deadline := time.Now().Add(5 * time.Second); !holds(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("never: %s", what)
		}
	}
}

func TestChangesOfOutputsAreTold(t *testing.T) {
	dir, other := t.TempDir(), t.TempDir()
	path := filepath.Join(dir, "token")
	if err := os.WriteFile(path, []byte("one"), 0o600); err != nil {
		t.Fatal(err)
	}
	w := watchDirs(t, dir, other)
	temp := filepath.Join(other, "temp")
	if err := os.WriteFile(temp, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name   string
		change func() error
	}{
		{"written", func() error { return os.WriteFile(path, []byte("two"), 0o600) }},
		{"its mode", func() error { return os.Chmod(path, 0o644) }},
		{"removed", func() error { return os.Remove(path) }},
		{"replaced", func() error { return os.Rename(temp, path) }},
	} {
		before := w.count(path)
		if err := c.change(); err != nil {
			t.Fatal(err)
		}
		eventually(t, c.name, func() bool { return w.count(path) > before })
	}
}

// TestABusyDirectoryIsToldOfSeldom: each path once for what comes within a tenth of a second.
func TestABusyDirectoryIsToldOfSeldom(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "log")
	w := watchDirs(t, dir)
	began := time.Now()
	for time.Since(began) < time.Second {
		if err := os.WriteFile(path, bytes.Repeat([]byte("x"), 100), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if n := w.count(path); n == 0 || n > 15 {
		t.Errorf("told %d times in a second", n)
	}
}

// TestADirectoryThatIsReplaced is found out by a look, since no event tells of it.
func TestADirectoryThatIsReplaced(t *testing.T) {
	parent := t.TempDir()
	dir := filepath.Join(parent, "secrets")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	d := &watchedDirs{watcher: newTestWatcher(t), log: slog.New(slog.DiscardHandler), dirs: []string{dir}, are: map[string]os.FileInfo{},
		failed: map[string]bool{}}
	if !d.renew() || d.renew() {
		t.Error("a directory is new once")
	}
	if err := os.Rename(dir, dir+".old"); err != nil {
		t.Fatal(err)
	}
	if !d.renew() || d.renew() {
		t.Error("that it is gone is news once")
	}
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if !d.renew() || d.renew() {
		t.Error("that another is there is news once")
	}
	if list := d.watcher.WatchList(); len(list) != 1 || list[0] != dir {
		t.Errorf("watched: %v", list)
	}
}

func newTestWatcher(t *testing.T) *fsnotify.Watcher {
	t.Helper()
	w, err := fsnotify.NewWatcher()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = w.Close() })
	return w
}

// TestOutputsThatCannotBeWatched are looked at: a user has only so many watches, which all containers of a node may share.
func TestOutputsThatCannotBeWatched(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		d := &watchedDirs{log: slog.New(slog.DiscardHandler), dirs: []string{dir}, are: map[string]os.FileInfo{}, failed: map[string]bool{}}
		looks := 0
		go d.watch(ctx, true, func(string) {}, func() { looks++ })
		time.Sleep(10*dirLook + time.Second)
		cancel()
		synctest.Wait()
		if looks != 10 {
			t.Errorf("%d looks in five minutes", looks)
		}
	})
}

// TestADirectoryThatIsMadeAgain is watched again, also if it has the number of the one before, as ext4 does it.
func TestADirectoryThatIsMadeAgain(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "secrets")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	watcher, err := fsnotify.NewWatcher()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = watcher.Close() }()
	d := &watchedDirs{watcher: watcher, log: slog.New(slog.DiscardHandler), dirs: []string{dir}, are: map[string]os.FileInfo{},
		failed: map[string]bool{}}
	d.renew()
	go func() {
		for range watcher.Events {
			continue // they are taken, so that the watcher goes on
		}
	}()
	if d.renew() {
		t.Error("nothing has changed, and something may have")
	}
	if err := os.Remove(dir); err != nil {
		t.Fatal(err)
	}
	eventually(t, "it is not watched any more", func() bool { return len(watcher.WatchList()) == 0 })
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if !d.renew() || len(watcher.WatchList()) != 1 {
		t.Errorf("watched: %v", watcher.WatchList())
	}
}

// TestADirectoryWithTwoNames is watched once, and not looked at all the time for that.
func TestADirectoryWithTwoNames(t *testing.T) {
	dir := t.TempDir()
	link := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(dir, link); err != nil {
		t.Fatal(err)
	}
	watcher, err := fsnotify.NewWatcher()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = watcher.Close() }()
	d := &watchedDirs{watcher: watcher, log: slog.New(slog.DiscardHandler), dirs: []string{dir, link}, are: map[string]os.FileInfo{},
		failed: map[string]bool{}}
	if !d.renew() || d.renew() {
		t.Errorf("watched: %v", watcher.WatchList())
	}
}
