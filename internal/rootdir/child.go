package rootdir

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

// Child opens a directory in d. A link in its place is not followed.
func (d *Dir) Child(name string) (*Dir, error) {
	before, err := d.root.Lstat(name)
	if err != nil {
		return nil, d.at(name, err)
	}
	path := filepath.Join(d.path, name)
	if !before.IsDir() {
		return nil, fmt.Errorf("%s is not a directory", path)
	}
	root, err := openPlace(filepath.Join(d.real, name))
	if err != nil {
		return nil, err
	}
	after, err := root.Stat(".")
	if err == nil && !os.SameFile(before, after) {
		err = fmt.Errorf("%s was replaced while it was opened", path)
	}
	if err != nil {
		return nil, errors.Join(err, root.Close())
	}
	return newDir(&Dir{path: path, real: filepath.Join(d.real, name), root: root, parent: d, name: name}), nil
}

// MakeChild makes a directory in d with that mode and owner, unless there is one of that name. Others may write to d:
// so it is made under a name that nobody knows, and gets mode and owner only if what is found there then is the new
// directory.
func (d *Dir) MakeChild(name string, mode fs.FileMode, owner Owner) error {
	if info, err := d.root.Lstat(name); err == nil && info.IsDir() {
		return nil
	}
	temp := "." + name + "." + rand.Text()[:10] + tempSuffix
	if err := d.root.Mkdir(temp, 0o700); err != nil {
		return d.explain(name, err)
	}
	err := d.giveChild(temp, mode, owner)
	if err == nil {
		err = d.root.Rename(temp, name)
	}
	if err != nil {
		return errors.Join(d.explain(name, err), d.Remove(temp))
	}
	return nil
}

func (d *Dir) giveChild(name string, mode fs.FileMode, owner Owner) error {
	child, err := d.Child(name)
	if err != nil {
		return err
	}
	defer func() { _ = child.Close() }()
	f, err := child.root.Open(".")
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	if err := isNew(f); err != nil {
		return err
	}
	if owner != Keep {
		if err := f.Chown(owner.UID, owner.GID); err != nil {
			return fmt.Errorf("give it to %d:%d: %w", owner.UID, owner.GID, errors.Unwrap(err))
		}
	}
	return f.Chmod(mode) // whatever the umask
}

// isNew returns an error if a directory is not one that this process has just made: it belongs to somebody else, others
// may enter it, or something is in it.
func isNew(f *os.File) error {
	info, err := f.Stat()
	if err != nil {
		return err
	}
	stat, ok := info.Sys().(*syscall.Stat_t)
	_, empty := f.Readdirnames(1)
	if ok && int(stat.Uid) == os.Geteuid() && info.Mode().Perm()&0o077 == 0 && errors.Is(empty, io.EOF) {
		return nil
	}
	return errors.New("somebody put another directory in the place of the new one")
}

// identity is what tells one file from all others.
func identity(info fs.FileInfo) (dev, ino uint64, ok bool) {
	stat, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return 0, 0, false
	}
	return uint64(stat.Dev), stat.Ino, true
}
