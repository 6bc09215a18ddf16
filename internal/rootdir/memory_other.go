//go:build !linux

package rootdir

import "os"

// inMemory cannot tell on this system, and says no.
func (d *Dir) inMemory() (bool, error) { return false, nil }

// isOfProcesses has nothing to find on this system.
func isOfProcesses(*os.File) bool { return false }

// isMount cannot tell on this system, and says no.
func (d *Dir) isMount(string) (bool, error) { return false, nil }
