package render

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"github.com/balena-injector/injector/internal/rootdir"
)

// Dirs are the directories of outputs, each opened once however many keys write there. It is
// safe for concurrent use. Make it with NewDirs.
type Dirs struct {
	onDisk bool
	mu     sync.Mutex
	open   map[string]*rootdir.Dir
}

// NewDirs returns Dirs with nothing open. onDisk allows file systems that are not in memory.
func NewDirs(onDisk bool) *Dirs { return &Dirs{onDisk: onDisk, open: map[string]*rootdir.Dir{}} }

// Close closes all of them.
func (d *Dirs) Close() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	var err error
	for path, dir := range d.open {
		err = errors.Join(err, dir.Close())
		delete(d.open, path)
	}
	return err
}

// get returns the open directory, opening it again if the path leads to another by now, and closes the old one: what
// is writing there fails, and tries again.
func (d *Dirs) get(path string) (*rootdir.Dir, error) {
	return d.keep(path, d.checkMemory, func() (*rootdir.Dir, error) { return rootdir.Open(path) })
}

// anywhere is what the directory is checked for in which getIn makes one: nothing is written there.
func anywhere(*rootdir.Dir) error { return nil }

// getIn is get for a directory that only this program's outputs need, in one that is there. Apps may write to that one,
// and so put anything in the place of this one: no link is followed there.
func (d *Dirs) getIn(path string, owner Owner) (*rootdir.Dir, error) {
	parent, err := d.parent(path)
	if err != nil {
		return nil, err
	}
	name := filepath.Base(path)
	return d.keep(path, d.checkMemory, func() (*rootdir.Dir, error) {
		if err := parent.MakeChild(name, 0o770, owner); err != nil {
			return nil, err
		}
		return parent.Child(name)
	})
}

// parent returns the directory in which another one is made, if need be.
func (d *Dirs) parent(path string) (*rootdir.Dir, error) {
	dir := filepath.Dir(path)
	return d.keep("in "+dir, anywhere, func() (*rootdir.Dir, error) { return rootdir.Open(dir) })
}

// keep returns the directory that is open under that name, or opens it.
func (d *Dirs) keep(name string, check func(*rootdir.Dir) error, open func() (*rootdir.Dir, error)) (*rootdir.Dir, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	old := d.open[name]
	if old != nil {
		if !old.Moved() {
			return old, nil
		}
		if !old.IsChild() {
			open = old.Reopen
		}
	}
	dir, err := open()
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return nil, &missingDir{strings.TrimPrefix(name, "in ")}
		}
		return nil, fmt.Errorf("open the output's directory: %w", err)
	}
	if err := check(dir); err != nil {
		return nil, errors.Join(err, dir.Close())
	}
	if old != nil {
		_ = old.Close()
	}
	d.open[name] = dir
	return dir, nil
}

func (d *Dirs) checkMemory(dir *rootdir.Dir) error {
	if d.onDisk {
		return nil
	}
	memory, err := dir.InMemory()
	if err == nil && !memory {
		err = fmt.Errorf("%s is not in memory, and a key must not reach a disk: %s, or set INJECTOR_REQUIRE_TMPFS=false", dir.Path(),
			mountHint(dir.Path()))
	}
	return err
}

// missingDir is the error of an output whose directory is not there.
type missingDir struct{ path string }

func (m *missingDir) Error() string {
	return fmt.Sprintf("the output's directory %s does not exist: %s", m.path, mountHint(m.path))
}

func (m *missingDir) Is(target error) bool { return target == fs.ErrNotExist }

func mountHint(path string) string {
	return fmt.Sprintf("mount a tmpfs there (mkdir -p %s && mount -t tmpfs -o size=1m,mode=0700,uid=%d tmpfs %s, docker run --tmpfs %s, a "+
		"Compose volume with driver_opts type tmpfs, a Kubernetes emptyDir with medium: Memory)", path, os.Getuid(), path, path)
}
