package render

import (
	"context"
	"crypto/sha256"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/fsnotify/fsnotify"

	"github.com/balena-injector/injector/internal/rootdir"
)

const (
	// slowPoll finds changes that no event told of: network file systems, overflows.
	slowPoll = time.Minute
	// settling is how long files must be quiet before they are read: a truncated file that is
	// then written again is two events, and the state in between means nothing.
	settling = 200 * time.Millisecond
)

// Watch calls changed, from its own goroutine, whenever the content of one of the files is
// another than before; a file that comes or goes counts as well. It watches their directories,
// so that it sees files that are replaced, and Kubernetes' ..data links that are swapped. It
// returns when ctx is done.
func Watch(ctx context.Context, log *slog.Logger, files []string, changed func()) error {
	w, err := fsnotify.NewWatcher()
	if err != nil {
		log.Warn("files cannot be watched; they are looked at once a minute", "error", err)
		return watch(ctx, files, nil, changed)
	}
	defer func() { _ = w.Close() }()
	dirs := directories(files)
	for _, dir := range dirs {
		if err := w.Add(dir); err != nil {
			log.Warn("a directory cannot be watched; its files are looked at once a minute", "directory", dir, "error", err)
		}
	}
	return watch(ctx, files, events(ctx, w, dirs), changed)
}

// directories are those of the files, and those in which a link lies that leads to one: it may be swapped.
func directories(files []string) []string {
	var list []string
	for _, f := range files {
		list = append(list, filepath.Dir(f))
		for dir := filepath.Dir(f); dir != filepath.Dir(dir); dir = filepath.Dir(dir) {
			if info, err := os.Lstat(dir); err == nil && info.Mode()&os.ModeSymlink != 0 {
				list = append(list, filepath.Dir(dir))
			}
		}
	}
	slices.Sort(list)
	return slices.Compact(list)
}

// events reduces what fsnotify says to "something may have changed", errors included: an
// overflow is one. A directory that was removed and made again is watched again.
func events(ctx context.Context, w *fsnotify.Watcher, dirs []string) <-chan struct{} {
	out := make(chan struct{}, 1)
	go func() {
		for {
			select {
			case _, ok := <-w.Events:
				if !ok {
					return
				}
			case _, ok := <-w.Errors:
				if !ok {
					return
				}
			case <-ctx.Done():
				return
			}
			for _, dir := range dirs {
				_ = w.Add(dir) // nothing new where it is the same directory
			}
			select {
			case out <- struct{}{}:
			default:
			}
		}
	}()
	return out
}

func watch(ctx context.Context, files []string, events <-chan struct{}, changed func()) error {
	last := fingerprint(files)
	poll := time.NewTicker(slowPoll)
	defer poll.Stop()
	quiet := time.NewTimer(0)
	defer quiet.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-events:
			quiet.Reset(settling)
			continue
		case <-poll.C:
		case <-quiet.C:
		}
		if now := fingerprint(files); now != last {
			last = now
			changed()
		}
	}
}

// fingerprint is a hash over the files' contents. Files that cannot be read have none.
func fingerprint(files []string) [sha256.Size]byte {
	h := sha256.New()
	for _, f := range files {
		sum := [sha256.Size]byte{}
		if data, err := rootdir.ReadFile(f, maxTemplate); err == nil {
			sum = sha256.Sum256(data)
		}
		h.Write(sum[:])
	}
	return [sha256.Size]byte(h.Sum(nil))
}
