//go:build !linux

package child

// lookAt cannot tell on this system.
func lookAt(int) (stopped, continued bool) { return false, false }
