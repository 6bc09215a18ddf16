package render

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
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

// get returns the open directory, opening it again if the path leads elsewhere by now. One that
// was moved away is left to the garbage collector: another goroutine may still write there.
func (d *Dirs) get(path string) (*rootdir.Dir, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if dir := d.open[path]; dir != nil {
		if !dir.Moved() {
			return dir, nil
		}
		delete(d.open, path)
	}
	dir, err := rootdir.Open(path)
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return nil, &missingDir{path}
		}
		return nil, fmt.Errorf("open the output's directory: %w", err)
	}
	if err := d.checkMemory(dir); err != nil {
		return nil, errors.Join(err, dir.Close())
	}
	d.open[path] = dir
	return dir, nil
}

// make creates a directory that only this program's outputs need, in one that is there.
func (d *Dirs) make(path string, owner Owner) error {
	err := os.Mkdir(path, 0o770)
	switch {
	case errors.Is(err, fs.ErrExist):
		return nil
	case err != nil:
		return fmt.Errorf("make the output's directory %s: %w", path, errors.Unwrap(err))
	}
	dir, err := os.Open(path)
	if err != nil {
		return err
	}
	defer func() { _ = dir.Close() }()
	if owner != Keep {
		if err := dir.Chown(owner.UID, owner.GID); err != nil {
			return fmt.Errorf("give the output's directory to %d:%d: %w", owner.UID, owner.GID, err)
		}
	}
	return dir.Chmod(0o770) // whatever the umask
}

func (d *Dirs) checkMemory(dir *rootdir.Dir) error {
	if d.onDisk {
		return nil
	}
	memory, err := dir.InMemory()
	if err == nil && !memory {
		err = fmt.Errorf("%s is not in memory, and a key must not reach a disk: %s, or set INJECTOR_REQUIRE_TMPFS=false", dir.Path(), mountHint(dir.Path()))
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
	return fmt.Sprintf("mount a tmpfs there (mkdir -p %s && mount -t tmpfs -o size=1m,mode=0700,uid=%d tmpfs %s, docker run --tmpfs %s, a Compose volume with driver_opts type tmpfs, a Kubernetes emptyDir with medium: Memory)", path, os.Getuid(), path, path)
}
