package child

import (
	"errors"
	"io/fs"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// controllingTerminal opens the terminal of this session, from which a command can read whatever its standard input is;
// nil if there is none. Without /dev the standard input has to tell.
func controllingTerminal() *os.File {
	tty, err := os.OpenFile("/dev/tty", os.O_RDWR|syscall.O_NOCTTY|syscall.O_NONBLOCK, 0)
	switch {
	case err == nil:
		return tty
	case errors.Is(err, fs.ErrNotExist) && isTerminal(os.Stdin):
		return os.Stdin
	}
	return nil
}

// isTerminal reports whether f is a terminal: only those have a size.
func isTerminal(f *os.File) bool {
	_, err := unix.IoctlGetWinsize(int(f.Fd()), unix.TIOCGWINSZ)
	return err == nil
}
