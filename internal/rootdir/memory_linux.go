package rootdir

import (
	"golang.org/x/sys/unix"
)

// InMemory tells whether the directory lies on a file system that never reaches a disk but by
// swapping: tmpfs or ramfs.
func (d *Dir) InMemory() (bool, error) {
	f, err := d.root.Open(".")
	if err != nil {
		return false, err
	}
	defer func() { _ = f.Close() }()
	var stat unix.Statfs_t
	if err := unix.Fstatfs(int(f.Fd()), &stat); err != nil {
		return false, err
	}
	kind := uint32(stat.Type) // its sign and size differ between architectures
	return kind == unix.TMPFS_MAGIC || kind == unix.RAMFS_MAGIC, nil
}

// isMount tells whether something is mounted at name. A kernel too old to know (before 5.8)
// says no.
func (d *Dir) isMount(name string) (bool, error) {
	f, err := d.root.Open(".")
	if err != nil {
		return false, err
	}
	defer func() { _ = f.Close() }()
	var stat unix.Statx_t
	if err := unix.Statx(int(f.Fd()), name, unix.AT_SYMLINK_NOFOLLOW, unix.STATX_TYPE, &stat); err != nil {
		return false, err
	}
	return stat.Attributes&stat.Attributes_mask&unix.STATX_ATTR_MOUNT_ROOT != 0, nil
}
