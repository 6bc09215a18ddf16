//go:build !linux

package rootdir

// InMemory cannot tell on this system, and says no.
func (d *Dir) InMemory() (bool, error) { return false, nil }

// isMount cannot tell on this system, and says no.
func (d *Dir) isMount(string) (bool, error) { return false, nil }
