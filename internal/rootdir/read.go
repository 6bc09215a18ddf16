package rootdir

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"syscall"
)

// Read returns the bytes of a regular file of at most limit bytes. It never waits for a pipe
// and never follows a link.
func (d *Dir) Read(name string, limit int) ([]byte, error) {
	f, err := d.regular(name)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	data, err := ReadRegular(f, limit)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", filepath.Join(d.path, name), err)
	}
	return data, nil
}

// ReadOwn is Read for what nobody else may have written: the file must belong to this user, and be open to nobody else.
func (d *Dir) ReadOwn(name string, limit int) ([]byte, error) {
	f, err := d.regular(name)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	stat, ok := info.Sys().(*syscall.Stat_t)
	switch path := filepath.Join(d.path, name); {
	case !ok || int(stat.Uid) != os.Geteuid():
		return nil, fmt.Errorf("%s belongs to user %d and this is user %d: remove it", path, stat.Uid, os.Geteuid())
	case info.Mode().Perm()&0o077 != 0:
		return nil, fmt.Errorf("%s is open to others (mode %04o): remove it, or chmod 0600", path, info.Mode().Perm())
	}
	return ReadRegular(f, limit)
}

// ReadInside is ReadFile for a file below d. Links are followed as long as they stay below it.
func (d *Dir) ReadInside(name string, limit int) ([]byte, error) {
	f, err := d.root.OpenFile(name, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	return ReadRegular(f, limit)
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
		return nil, errors.New("it is not a regular file")
	}
	if isOfProcesses(f) {
		return nil, errors.New("it belongs to the kernel's view of processes (/proc), which shows secrets")
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
		return nil, d.at(name, err)
	}
	if !before.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is not a regular file", filepath.Join(d.path, name))
	}
	f, err := d.root.OpenFile(name, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, d.at(name, err)
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
