package rootdir

import (
	"os"

	"golang.org/x/sys/unix"
)

// inMemory looks what InMemory reports.
func (d *Dir) inMemory() (bool, error) {
	f, err := d.self()
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

// isOfProcesses reports whether a file lies in a procfs, such as /proc/self/environ: it looks like a regular file.
func isOfProcesses(f *os.File) bool {
	var stat unix.Statfs_t
	return unix.Fstatfs(int(f.Fd()), &stat) == nil && uint32(stat.Type) == unix.PROC_SUPER_MAGIC
}

// isMount reports whether something is mounted at name. It only makes an error clearer: a kernel that does not know
// (before 5.8, or 4.11 for the call itself), or a seccomp profile that forbids to ask, says no.
func (d *Dir) isMount(name string) (bool, error) {
	f, err := d.self()
	if err != nil {
		return false, err
	}
	defer func() { _ = f.Close() }()
	var stat unix.Statx_t
	if err := unix.Statx(int(f.Fd()), name, unix.AT_SYMLINK_NOFOLLOW, unix.STATX_TYPE, &stat); err != nil {
		return false, nil
	}
	return stat.Attributes&stat.Attributes_mask&unix.STATX_ATTR_MOUNT_ROOT != 0, nil
}
