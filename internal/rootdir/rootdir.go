// Package rootdir does file work inside one directory that others may write to as well: an app
// may plant links, pipes and directories there, and read at any moment.
//
// All goes through an os.Root, so nothing outside of the directory is ever touched; files are
// replaced as a whole, so a reader sees the old bytes or the new ones.
package rootdir

import (
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"github.com/balena-injector/injector/internal/crashpoint"
)

// Dir is an open directory. It is safe for concurrent use, as far as the file system is.
type Dir struct {
	path   string
	real   string // where path led when it was opened, without links
	root   *os.Root
	parent *Dir   // of a Child
	name   string // of a Child, in its parent
	memory bool   // nothing here outlives a power cut, so nothing is synced
	unsure error  // why it is not known whether it does

	here fs.FileInfo // which directory it is

	sweeping sync.Mutex
	left     []string  // what was half written here, when it was listed last
	listed   time.Time // zero: not yet
}

// Owner is a numeric user and group. -1 leaves either as it is.
type Owner struct{ UID, GID int }

// Keep leaves a new file to the user and group that made it.
var Keep = Owner{-1, -1}

// Open opens the directory at path, which must exist. Links in the path are followed as they are now: who
// configured it has made them. See Reopen for later.
func Open(path string) (*Dir, error) {
	where, err := filepath.EvalSymlinks(path)
	if err == nil {
		where, err = filepath.Abs(where)
	}
	if err != nil {
		return nil, err
	}
	root, err := openPlace(where)
	if err != nil {
		return nil, err
	}
	return newDir(&Dir{path: path, real: where, root: root}), nil
}

// newDir finds out what d's file system is.
func newDir(d *Dir) *Dir {
	d.memory, d.unsure = d.inMemory()
	d.here, _ = d.root.Stat(".") // else Moved asks again
	return d
}

// Reopen opens the directory that is in d's place by now: its volume was mounted again, or it was made anew. A path that
// leads elsewhere since, through a link that was not there, is refused. d stays open.
func (d *Dir) Reopen() (*Dir, error) {
	if d.parent != nil {
		return d.parent.Child(d.name)
	}
	now, err := Open(d.path)
	if err != nil {
		return nil, err
	}
	if now.real != d.real {
		return nil, errors.Join(fmt.Errorf("%s leads to %s through a link, and led to %s when it was opened first: a restart follows it",
			d.path, now.real, d.real), now.Close())
	}
	return now, nil
}

// InMemory reports whether the directory lies on a file system that never reaches a disk but by swapping: tmpfs or ramfs.
func (d *Dir) InMemory() (bool, error) {
	if d.unsure != nil {
		return d.inMemory()
	}
	return d.memory, nil
}

// IsChild reports whether d was opened in another directory, by Child.
func (d *Dir) IsChild() bool { return d.parent != nil }

// Real returns where the path led when the directory was opened, without links.
func (d *Dir) Real() string { return d.real }

// Path returns the path that the directory was opened by.
func (d *Dir) Path() string { return d.path }

// Root returns the open directory, for what this package does not do.
func (d *Dir) Root() *os.Root { return d.root }

// Close closes the directory.
func (d *Dir) Close() error { return d.root.Close() }

// Moved reports whether the path leads to another directory by now, or to none: it was removed,
// replaced or mounted over since it was opened.
func (d *Dir) Moved() bool {
	here, err := d.here, error(nil)
	if here == nil {
		if here, err = d.root.Stat("."); err != nil {
			return true
		}
	}
	var there fs.FileInfo
	if d.parent != nil {
		if d.parent.Moved() {
			return true
		}
		there, err = d.parent.root.Lstat(d.name)
	} else {
		there, err = os.Stat(d.path)
	}
	return err != nil || !os.SameFile(here, there)
}

// Replace makes name hold data, with that mode and owner from the first instant that it can be
// seen. A link, pipe or other file of that name is replaced, never followed. If anything fails
// the old file stays as it was.
func (d *Dir) Replace(name string, data []byte, mode fs.FileMode, owner Owner) error {
	s, err := d.Stage(name, data, mode, owner)
	if err != nil {
		return err
	}
	return s.Commit()
}

// explain adds the way out to errors that have a usual cause.
func (d *Dir) explain(name string, err error) error {
	path := filepath.Join(d.path, name)
	hint := ""
	switch {
	case errors.Is(err, syscall.EBUSY):
		hint = ": it is a mount of its own, which can never be replaced; mount its directory instead"
	case errors.Is(err, syscall.ENOSPC):
		hint = ": the file system is full"
	case errors.Is(err, syscall.EROFS):
		hint = ": it is mounted read-only here"
	case errors.Is(err, syscall.EISDIR), errors.Is(err, syscall.EEXIST), errors.Is(err, syscall.ENOTEMPTY):
		hint = ": there is a directory of that name; remove it"
	case errors.Is(err, fs.ErrPermission):
		hint = fmt.Sprintf(": user %d may not do that there%s", os.Getuid(), d.owner())
	}
	if p, ok := errors.AsType[*fs.PathError](err); ok {
		err = p.Err
	} else if l, ok := errors.AsType[*os.LinkError](err); ok {
		err = l.Err
	}
	return fmt.Errorf("write %s: %w%s", path, err, hint)
}

// owner says whose directory it is, and what to do about it.
func (d *Dir) owner() string {
	info, err := d.root.Stat(".")
	if err != nil {
		return ""
	}
	stat, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return ""
	}
	return fmt.Sprintf(
		": the directory belongs to %d:%d with mode %04o; give it to this user (uid=%d among a tmpfs' options), or run as another",
		stat.Uid, stat.Gid, info.Mode().Perm(), os.Getuid())
}

// Holds reports whether name is a regular file with exactly these bytes, mode and owner.
func (d *Dir) Holds(name string, data []byte, mode fs.FileMode, owner Owner) bool {
	f, err := d.regular(name)
	if err != nil {
		return false
	}
	defer func() { _ = f.Close() }()
	info, err := f.Stat()
	if err != nil || info.Mode().Perm() != mode || info.Size() != int64(len(data)) || !owns(info, owner) {
		return false
	}
	got, err := io.ReadAll(io.LimitReader(f, int64(len(data))+1))
	return err == nil && bytes.Equal(got, data)
}

func owns(info fs.FileInfo, owner Owner) bool {
	stat, ok := info.Sys().(*syscall.Stat_t)
	return ok && (owner.UID == -1 || int(stat.Uid) == owner.UID) && (owner.GID == -1 || int(stat.Gid) == owner.GID)
}

// Remove removes name. It is not an error if there is none.
func (d *Dir) Remove(name string) error {
	crashpoint.Here("before removing " + name)
	if err := d.root.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return d.at(name, err)
	}
	return nil
}

// Try does all of Replace but the last step: it writes a file with that mode and owner, and
// removes it again. It also finds what would stop the last step: a directory of that name, or
// something mounted there.
func (d *Dir) Try(name string, mode fs.FileMode, owner Owner) error {
	temp := "." + name + "." + rand.Text()[:10] + tempSuffix
	if err := d.write(temp, []byte("x"), mode, owner); err != nil {
		return errors.Join(d.explain(name, err), d.Remove(temp))
	}
	kept := d.Holds(temp, []byte("x"), mode, owner)
	if err := d.Remove(temp); err != nil {
		return d.explain(name, err)
	}
	if !kept {
		return fmt.Errorf("the file system of %s does not keep modes and owners, so a file there cannot be protected", d.path)
	}
	return d.takeable(name)
}
