package rootdir

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/balena-injector/injector/internal/crashpoint"
)

// Staged is a file that is written and waits to take its name. Commit or Discard it.
type Staged struct {
	dir        *Dir
	temp, name string
}

// Stage does all of Replace that can fail for want of room or rights, and leaves the old file
// where it is.
func (d *Dir) Stage(name string, data []byte, mode fs.FileMode, owner Owner) (*Staged, error) {
	temp := "." + name + "." + rand.Text()[:10] + tempSuffix
	crashpoint.Here("before " + name)
	if err := d.write(temp, data, mode, owner); err != nil {
		return nil, errors.Join(d.explain(name, err), d.Remove(temp))
	}
	return &Staged{d, temp, name}, nil
}

// Check finds what would keep Commit from succeeding, as far as that can be known: a directory of that name, or
// something mounted there.
func (s *Staged) Check() error { return s.dir.takeable(s.name) }

// Commit puts the file in its place.
func (s *Staged) Commit() error {
	crashpoint.Here("before renaming " + s.name)
	if err := s.dir.root.Rename(s.temp, s.name); err != nil {
		return errors.Join(s.dir.explain(s.name, err), s.Discard())
	}
	crashpoint.Here("after renaming " + s.name)
	return s.dir.sync()
}

// Discard removes the file, which nobody has seen.
func (s *Staged) Discard() error { return s.dir.Remove(s.temp) }

// tempSuffix ends the names of files that are not whole yet.
const tempSuffix = ".part"

func (d *Dir) write(name string, data []byte, mode fs.FileMode, owner Owner) (err error) {
	f, err := d.root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	crashpoint.Here("after creating " + name)
	// On the descriptor: by name, the file could be another one by now.
	if owner != Keep {
		if err := f.Chown(owner.UID, owner.GID); err != nil {
			return fmt.Errorf("give it to %d:%d, which takes root, CAP_CHOWN or membership in the group: %w", owner.UID, owner.GID,
				errors.Unwrap(err))
		}
	}
	if err := f.Chmod(mode); err != nil {
		return err
	}
	crashpoint.Here("before writing " + name)
	if _, err := f.Write(data); err != nil {
		return err
	}
	crashpoint.Here("after writing " + name)
	return d.synced(f)
}

// synced makes what was written outlive a power cut, where anything does. A file system that cannot is not a reason to
// fail.
func (d *Dir) synced(f *os.File) error {
	crashpoint.Here("before syncing")
	if d.memory {
		return nil
	}
	err := f.Sync()
	for _, cannot := range []error{syscall.EINVAL, syscall.ENOSYS, syscall.ENOTSUP, syscall.EPERM} {
		if errors.Is(err, cannot) {
			return nil
		}
	}
	return err
}

// sync makes a rename outlive a power cut.
func (d *Dir) sync() error {
	if d.memory {
		crashpoint.Here("before syncing")
		return nil
	}
	f, err := d.self()
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	return d.synced(f)
}

// Sweep removes what an earlier process left of name when it was killed in the middle of
// Replace.
func (d *Dir) Sweep(name string) error {
	left, err := d.leftovers()
	for _, n := range left {
		if strings.HasPrefix(n, "."+name+".") {
			err = errors.Join(err, d.Remove(n))
		}
	}
	return err
}

// sweepFor is how long a list of leftovers is good for: thousands of files of one directory are swept one after the other.
const sweepFor = time.Second

// leftovers lists what was left half written in the directory.
func (d *Dir) leftovers() ([]string, error) {
	d.sweeping.Lock()
	defer d.sweeping.Unlock()
	if !d.listed.IsZero() && time.Since(d.listed) < sweepFor {
		return d.left, nil
	}
	names, err := d.Names()
	if err != nil {
		return nil, err
	}
	d.left, d.listed = slices.DeleteFunc(names, func(n string) bool { return !strings.HasSuffix(n, tempSuffix) }), time.Now()
	return d.left, nil
}

// takeable reports whether a file can take that name.
func (d *Dir) takeable(name string) error {
	info, err := d.root.Lstat(name)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return d.explain(name, err)
	case info.IsDir():
		return d.explain(name, syscall.EISDIR)
	}
	mount, err := d.isMount(name)
	if err == nil && mount {
		err = syscall.EBUSY
	}
	if err != nil {
		return d.explain(name, err)
	}
	return nil
}
