package rootdir

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// openPlace opens the directory at path, which is absolute and has no link in it: one that somebody plants there at
// this moment is not followed, and a pipe in the place of a directory is not waited for.
func openPlace(path string) (*os.Root, error) {
	fd, err := unix.Open("/", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	for name := range strings.SplitSeq(strings.Trim(path, "/"), "/") {
		if err != nil {
			break
		}
		if name != "" {
			fd, err = descend(fd, name)
		}
	}
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: path, Err: err}
	}
	defer func() { _ = unix.Close(fd) }()
	return rootAt(fd, path)
}

// descend opens a directory in another, which it closes. Only the right to search is needed.
func descend(parent int, name string) (int, error) {
	defer func() { _ = unix.Close(parent) }()
	fd, err := unix.Openat(parent, name, unix.O_PATH|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if errors.Is(err, unix.ELOOP) {
		err = unix.ENOTDIR
	}
	return fd, err
}

// rootAt returns the directory of a descriptor as a root. Without /proc it takes the path once more, and looks whether
// that still leads to the same directory.
func rootAt(fd int, path string) (*os.Root, error) {
	root, err := os.OpenRoot(fmt.Sprintf("/proc/self/fd/%d", fd))
	if err != nil {
		if root, err = os.OpenRoot(path); err != nil {
			return nil, err
		}
	}
	here, err := root.Stat(".")
	if err == nil && !isDescriptor(fd, here) {
		err = &fs.PathError{Op: "open", Path: path, Err: errors.New("it was replaced while it was opened")}
	}
	if err != nil {
		return nil, errors.Join(err, root.Close())
	}
	return root, nil
}

func isDescriptor(fd int, info fs.FileInfo) bool {
	var stat unix.Stat_t
	if unix.Fstat(fd, &stat) != nil {
		return false
	}
	dev, ino, ok := identity(info)
	return ok && dev == uint64(stat.Dev) && ino == stat.Ino
}
