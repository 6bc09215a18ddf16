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
	"strings"
	"syscall"

	"github.com/balena-injector/injector/internal/crashpoint"
)

// Dir is an open directory. It is safe for concurrent use, as far as the file system is.
type Dir struct {
	path string
	root *os.Root
}

// Owner is a numeric user and group. -1 leaves either as it is.
type Owner struct{ UID, GID int }

// Keep leaves a new file to the user and group that made it.
var Keep = Owner{-1, -1}

// Open opens the directory at path, which must exist.
func Open(path string) (*Dir, error) {
	root, err := os.OpenRoot(path)
	if err != nil {
		return nil, err
	}
	return &Dir{path: path, root: root}, nil
}

// Path returns the path that the directory was opened by.
func (d *Dir) Path() string { return d.path }

// Root returns the open directory, for what this package does not do.
func (d *Dir) Root() *os.Root { return d.root }

// Close closes the directory.
func (d *Dir) Close() error { return d.root.Close() }

// Moved tells whether the path leads to another directory by now, or to none: it was removed,
// replaced or mounted over since it was opened.
func (d *Dir) Moved() bool {
	here, err := d.root.Stat(".")
	if err != nil {
		return true
	}
	there, err := os.Stat(d.path)
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
			return fmt.Errorf("give it to %d:%d, which takes root, CAP_CHOWN or membership in the group: %w", owner.UID, owner.GID, errors.Unwrap(err))
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
	return f.Sync()
}

// sync makes a rename outlive a power cut. A file system that cannot is not asked twice.
func (d *Dir) sync() error {
	f, err := d.root.Open(".")
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	if err := f.Sync(); err != nil && !errors.Is(err, syscall.EINVAL) {
		return err
	}
	return nil
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
	return fmt.Sprintf(": the directory belongs to %d:%d with mode %04o; give it to this user (uid=%d among a tmpfs' options), or run as another", stat.Uid, stat.Gid, info.Mode().Perm(), os.Getuid())
}

// Read returns the bytes of a regular file of at most limit bytes. It never waits for a pipe
// and never follows a link.
func (d *Dir) Read(name string, limit int) ([]byte, error) {
	f, err := d.regular(name)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	data, err := io.ReadAll(io.LimitReader(f, int64(limit)+1))
	if err != nil {
		return nil, err
	}
	if len(data) > limit {
		return nil, fmt.Errorf("%s is longer than %d bytes", filepath.Join(d.path, name), limit)
	}
	return data, nil
}

// ReadFile is the content of a regular file of at most limit bytes, wherever it is. It never waits for a pipe, and
// reads a device or an endless file no further than that.
func ReadFile(path string, limit int) ([]byte, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	return ReadRegular(f, limit)
}

// ReadRegular is ReadFile for a file that was opened with O_NONBLOCK.
func ReadRegular(f *os.File, limit int) ([]byte, error) {
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, errors.New("it is no regular file")
	}
	data, err := io.ReadAll(io.LimitReader(f, int64(limit)+1))
	if err == nil && len(data) > limit {
		err = fmt.Errorf("it is longer than %d KiB", limit>>10)
	}
	return data, err
}

func (d *Dir) regular(name string) (*os.File, error) {
	before, err := d.root.Lstat(name)
	if err != nil {
		return nil, err
	}
	if !before.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is no regular file", filepath.Join(d.path, name))
	}
	f, err := d.root.OpenFile(name, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	after, err := f.Stat()
	if err == nil && !os.SameFile(before, after) {
		err = fmt.Errorf("%s was replaced while it was opened", filepath.Join(d.path, name))
	}
	if err != nil {
		_ = f.Close()
		return nil, err
	}
	return f, nil
}

// Holds tells whether name is a regular file with exactly these bytes, mode and owner.
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

// Remove removes name. It is no error if there is none.
func (d *Dir) Remove(name string) error {
	crashpoint.Here("before removing " + name)
	if err := d.root.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// Sweep removes what an earlier process left of name when it was killed in the middle of
// Replace.
func (d *Dir) Sweep(name string) error {
	f, err := d.root.Open(".")
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	names, err := f.Readdirnames(-1)
	for _, n := range names {
		if strings.HasPrefix(n, "."+name+".") && strings.HasSuffix(n, tempSuffix) {
			err = errors.Join(err, d.Remove(n))
		}
	}
	return err
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

// takeable tells whether a file can take that name.
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
