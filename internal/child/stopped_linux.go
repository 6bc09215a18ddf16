package child

import "golang.org/x/sys/unix"

// The codes of a child's signal that are not about its end.
const (
	childStopped   = 5
	childContinued = 6
)

// lookAt reports whether a child was stopped, or goes on, since it was last looked at.
func lookAt(pid int) (stopped, continued bool) {
	var info unix.Siginfo
	if unix.Waitid(unix.P_PID, pid, &info, unix.WSTOPPED|unix.WCONTINUED|unix.WNOHANG, nil) != nil {
		return false, false
	}
	return info.Code == childStopped, info.Code == childContinued
}
