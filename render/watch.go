package render

import (
	"context"
	"crypto/sha256"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
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
	// busy is when they are read although their directories are never quiet, such as those with a log in them.
	busy = time.Second
	// perEvent is the pause after each event: a log that is written to thousands of times a second then costs nothing.
	// What comes meanwhile waits in the kernel, where equal events become one.
	perEvent = settling / 2
)

// Watch calls changed, from its own goroutine, whenever the content of one of the files is
// another than before; a file that comes or goes counts as well. It watches their directories and those of all links
// on the way to them, so that it sees files that are replaced, and Kubernetes' ..data links that are swapped. What
// cannot be watched is looked at once a minute, which the log says. It returns when ctx is done.
func Watch(ctx context.Context, log *slog.Logger, files []string, changed func()) error {
	w, err := fsnotify.NewWatcher()
	if err != nil {
		log.Warn("files cannot be watched; they are looked at once a minute", "error", err)
		return watch(ctx, files, nil, func() {}, changed)
	}
	defer func() { _ = w.Close() }()
	dirs := &watched{watcher: w, log: log, files: files, failed: map[string]bool{}}
	dirs.renew()
	return watch(ctx, files, events(ctx, w), dirs.renew, changed)
}

// watched are the directories that the files lie in by now.
type watched struct {
	watcher *fsnotify.Watcher
	log     *slog.Logger
	files   []string
	failed  map[string]bool // whose failure was logged
}

// renew watches what is not watched yet, such as where a link leads that was swapped, or a directory that was removed
// and made again, and nothing else any more.
func (d *watched) renew() {
	wanted := directories(d.files)
	for _, dir := range d.watcher.WatchList() {
		if !slices.Contains(wanted, dir) {
			_ = d.watcher.Remove(dir)
		}
	}
	for _, dir := range wanted {
		err := d.watcher.Add(dir)
		if err != nil && !d.failed[dir] {
			d.log.Warn("a directory cannot be watched; its files are looked at once a minute", "directory", dir, "error", err)
		}
		d.failed[dir] = err != nil
	}
}

// directories are those of the files, and of every link on the way to one: it may be swapped.
func directories(files []string) []string {
	var list []string
	for _, f := range files {
		list = append(list, steps(f)...)
	}
	slices.Sort(list)
	return slices.Compact(list)
}

// mostLinks is how many links are followed on the way to one file, as by the kernel.
const mostLinks = 40

// steps are the directories in which a file's path takes a step that may change: where each link on the way lies, and
// where the path ends.
func steps(path string) []string {
	var list []string
	at, rest := "/", strings.Split(strings.Trim(path, "/"), "/")
	for links := 0; len(rest) > 0; {
		name := rest[0]
		rest = rest[1:]
		switch name {
		case "", ".":
			continue
		case "..":
			at = filepath.Dir(at)
			continue
		}
		to, err := os.Readlink(filepath.Join(at, name))
		if err != nil { // not a link
			if len(rest) == 0 {
				return append(list, nearestThere(at))
			}
			at = filepath.Join(at, name)
			continue
		}
		list = append(list, at)
		if links++; links > mostLinks {
			return list
		}
		if filepath.IsAbs(to) {
			at = "/"
		}
		rest = append(strings.Split(strings.Trim(to, "/"), "/"), rest...)
	}
	return list
}

// nearestThere returns dir, or what is there of the way to it: dir is made there.
func nearestThere(dir string) string {
	for dir != "/" {
		if info, err := os.Stat(dir); err == nil && info.IsDir() {
			break
		}
		dir = filepath.Dir(dir)
	}
	return dir
}

// events reduces what fsnotify says to "something may have changed", errors included: an
// overflow is one.
func events(ctx context.Context, w *fsnotify.Watcher) <-chan struct{} {
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
			select {
			case out <- struct{}{}:
			default:
			}
			select {
			case <-time.After(perEvent):
			case <-ctx.Done():
				return
			}
		}
	}()
	return out
}

// watch looks at the files when they have been quiet for a moment after an event, or busy for long, and once a minute;
// before that it calls renew.
func watch(ctx context.Context, files []string, events <-chan struct{}, renew, changed func()) error {
	last := fingerprint(files)
	poll := time.NewTicker(slowPoll)
	defer poll.Stop()
	look := time.NewTimer(0)
	defer look.Stop()
	var since time.Time // when the first event came that was not looked into yet
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-events:
			now := time.Now()
			if since.IsZero() {
				since = now
			}
			look.Reset(max(0, min(settling, since.Add(busy).Sub(now))))
			continue
		case <-poll.C:
		case <-look.C:
		}
		since = time.Time{}
		renew()
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
