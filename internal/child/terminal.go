package child

import (
	"os"

	"golang.org/x/sys/unix"
)

// isTerminal tells whether f is a terminal: only those have a size.
func isTerminal(f *os.File) bool {
	_, err := unix.IoctlGetWinsize(int(f.Fd()), unix.TIOCGWINSZ)
	return err == nil
}
