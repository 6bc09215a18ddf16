package render

import (
	"context"
	"log/slog"
	"os"
	"slices"
	"time"

	"github.com/fsnotify/fsnotify"
)

const (
	// dirLook is how often the directories of outputs are looked at: another may have taken the place of one, which no event
	// tells. What cannot be watched is looked at then, too.
	dirLook = 30 * time.Second
	// fileLook is how often all files in them are, if they are many.
	fileLook = 5 * time.Minute
)

// WatchDirs calls touched, from its own goroutine, with the path of what somebody may have changed in one of the
// directories, ourselves included, and all where anything may have: from time to time, when another directory has taken
// the place of one, and when events were lost. A directory that is not there yet is watched once it is. It returns when
// ctx is done. many says that all are too many files to be looked at every half a minute.
func WatchDirs(ctx context.Context, log *slog.Logger, dirs []string, many bool, touched func(path string), all func()) {
	w, err := fsnotify.NewWatcher()
	if err != nil {
		log.Warn("outputs cannot be watched; they are looked at every half a minute", "error", err)
		w = nil
	}
	d := &watchedDirs{watcher: w, log: log, dirs: dirs, are: map[string]os.FileInfo{}, failed: map[string]bool{}}
	d.watch(ctx, many, touched, all)
}

// watch is WatchDirs once there is a watcher, or none can be had.
func (d *watchedDirs) watch(ctx context.Context, many bool, touched func(path string), all func()) {
	var events chan fsnotify.Event // of a nil channel nothing ever comes
	var lost chan error
	if d.watcher != nil {
		defer func() { _ = d.watcher.Close() }()
		events, lost = d.watcher.Events, d.watcher.Errors
	}
	d.renew()
	look := time.NewTicker(dirLook)
	defer look.Stop()
	seen := time.Now()
	for {
		select {
		case <-ctx.Done():
			return
		case e, ok := <-events:
			if ok {
				d.drain(e, touched)
			}
			pauseFor(ctx, perEvent)
		case err := <-lost: // an overflow is one
			d.log.Debug("something may have changed unseen", "error", err)
			all()
		case <-look.C:
			if d.renew() || d.watcher == nil || !many || time.Since(seen) >= fileLook {
				seen = time.Now()
				all()
			}
		}
	}
}

// watchedDirs are the directories of outputs, as they were when they were looked at last.
type watchedDirs struct {
	watcher *fsnotify.Watcher // nil: there is none, and they are only looked at
	log     *slog.Logger
	dirs    []string
	are     map[string]os.FileInfo // absent: it is not there
	failed  map[string]bool        // that it cannot be watched was said
}

// renew watches the directories that are there now, and reports whether anything in them may have changed unseen.
func (d *watchedDirs) renew() (unseen bool) {
	watched := d.watched()
	for _, dir := range d.dirs {
		info, err := os.Stat(dir)
		was := d.are[dir]
		if err != nil {
			delete(d.are, dir)
			unseen = unseen || was != nil
			continue
		}
		d.are[dir] = info
		if was != nil && os.SameFile(was, info) && watched(dir, info) {
			continue
		}
		unseen = true
		if d.watcher == nil {
			continue
		}
		if err := d.watcher.Add(dir); err != nil {
			if !d.failed[dir] {
				d.log.Warn("a directory of outputs cannot be watched; they are looked at every half a minute", "directory", dir,
					"error", err)
			}
			d.failed[dir] = true
		} else {
			delete(d.failed, dir)
		}
	}
	return unseen
}

// watched returns what reports whether a directory that is there is watched, under that name or another one: a directory is
// watched once. Linux gives the number of one that was removed to the next, which is not. Without a watcher all count as watched.
func (d *watchedDirs) watched() func(dir string, info os.FileInfo) bool {
	if d.watcher == nil {
		return func(string, os.FileInfo) bool { return true }
	}
	names := map[string]bool{}
	for _, dir := range d.watcher.WatchList() {
		names[dir] = true
	}
	return func(dir string, info os.FileInfo) bool {
		if names[dir] {
			return true
		}
		for name := range names {
			if other := d.are[name]; other != nil && os.SameFile(other, info) {
				return true
			}
		}
		return false
	}
}

// drain tells of the events that are there, each path once.
func (d *watchedDirs) drain(e fsnotify.Event, touched func(path string)) {
	paths := []string{e.Name}
	for more := true; more; {
		select {
		case next, ok := <-d.watcher.Events:
			if more = ok; ok && next.Name != paths[len(paths)-1] {
				paths = append(paths, next.Name)
			}
		default:
			more = false
		}
	}
	slices.Sort(paths)
	for _, path := range slices.Compact(paths) {
		touched(path)
	}
}

func pauseFor(ctx context.Context, d time.Duration) {
	select {
	case <-time.After(d):
	case <-ctx.Done():
	}
}
