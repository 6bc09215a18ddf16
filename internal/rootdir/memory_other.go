//go:build !linux

package rootdir

import "os"

// InMemory cannot tell on this system, and says no.
func (d *Dir) InMemory() (bool, error) { return false, nil }

// isOfProcesses has nothing to find on this system.
func isOfProcesses(*os.File) bool { return false }

// isMount cannot tell on this system, and says no.
func (d *Dir) isMount(string) (bool, error) { return false, nil }
