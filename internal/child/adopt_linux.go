package child

import "golang.org/x/sys/unix"

// adoptOrphans makes the kernel give us the processes whose parents, among our descendants, have ended.
func adoptOrphans() error { return unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) }
