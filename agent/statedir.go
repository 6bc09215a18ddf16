package agent

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"syscall"
	"time"

	"github.com/balena-injector/injector/internal/rootdir"
)

// StateDir is the directory that holds an agent's journal and lock. Only its owner may enter.
type StateDir struct {
	*rootdir.Dir
	keepsSecrets bool
	lock         *os.File
}

// ErrLocked is returned when another agent works in a state directory.
var ErrLocked = errors.New("another injector works in this state directory")

const (
	journalFile = "journal.json"
	lockFile    = "lock"
	lockPoll    = 100 * time.Millisecond
)

// OpenStateDir opens the directory, and makes it (0700) if it does not exist yet. It refuses one
// that belongs to somebody else or that others may enter.
func OpenStateDir(path string) (*StateDir, error) {
	if err := os.Mkdir(path, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, fmt.Errorf("make the state directory %s: %w", path, errors.Unwrap(err))
	}
	link, err := os.Lstat(path)
	if err != nil {
		return nil, err
	}
	if !link.IsDir() {
		return nil, fmt.Errorf("the state directory %s is no directory", path)
	}
	if stat, ok := link.Sys().(*syscall.Stat_t); ok && int(stat.Uid) != os.Getuid() {
		return nil, notOurs(path, stat.Uid)
	}
	dir, err := rootdir.Open(path)
	if err != nil {
		return nil, fmt.Errorf("the state directory: %w", err)
	}
	memory, err := checkStateDir(dir, link)
	if err != nil {
		return nil, errors.Join(err, dir.Close())
	}
	return &StateDir{Dir: dir, keepsSecrets: memory}, nil
}

// checkStateDir looks at the directory that was opened, not at what its path leads to by now,
// and tells whether it is in memory.
func checkStateDir(dir *rootdir.Dir, link fs.FileInfo) (memory bool, err error) {
	path := dir.Path()
	info, err := dir.Root().Stat(".")
	if err != nil {
		return false, err
	}
	stat, ok := info.Sys().(*syscall.Stat_t)
	switch {
	case !os.SameFile(link, info):
		return false, fmt.Errorf("the state directory %s was replaced while it was opened", path)
	case ok && int(stat.Uid) != os.Getuid():
		return false, notOurs(path, stat.Uid)
	case info.Mode().Perm()&0o077 != 0: // the setgid bit that a Kubernetes fsGroup sets is no harm
		return false, fmt.Errorf("the state directory %s is open to others (mode %04o): chmod 0700 it", path, info.Mode().Perm())
	}
	return dir.InMemory()
}

func notOurs(path string, owner uint32) error {
	return fmt.Errorf("the state directory %s belongs to user %d and this is user %d: run as that user, remove it, or set another INJECTOR_STATE_DIR", path, owner, os.Getuid())
}

// KeepsSecrets tells whether the journal may hold live secrets: only in memory.
func (s *StateDir) KeepsSecrets() bool { return s.keepsSecrets }

// TryLock keeps other agents out until Close. It returns ErrLocked if one is in.
func (s *StateDir) TryLock() error {
	if s.lock != nil {
		return nil
	}
	f, err := s.Root().OpenFile(lockFile, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		_ = f.Close()
		if errors.Is(err, syscall.EWOULDBLOCK) {
			return fmt.Errorf("%w: %s", ErrLocked, s.Path())
		}
		return err
	}
	s.lock = f
	return nil
}

// Lock is TryLock, trying again until ctx is done.
func (s *StateDir) Lock(ctx context.Context) error {
	poll := time.NewTicker(lockPoll)
	defer poll.Stop()
	for {
		err := s.TryLock()
		if !errors.Is(err, ErrLocked) {
			return err
		}
		select {
		case <-poll.C:
		case <-ctx.Done():
			return err
		}
	}
}

// Close releases the lock and the directory.
func (s *StateDir) Close() error {
	var err error
	if s.lock != nil {
		err = s.lock.Close()
		s.lock = nil
	}
	return errors.Join(err, s.Dir.Close())
}

// File is one file of the state directory that others keep their notes in (a balena.Store).
func (s *StateDir) File(name string) *File { return NewFile(s.Dir, name) }

// NewFile returns the file of that name in dir. It need not exist.
func NewFile(dir *rootdir.Dir, name string) *File { return &File{dir, name} }

// File is a small private file.
type File struct {
	dir  *rootdir.Dir
	name string
}

const maxFile = 64 << 10

// Load returns the file's bytes, nil without an error if there is no file.
func (f *File) Load() ([]byte, error) {
	data, err := f.dir.Read(f.name, maxFile)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return data, err
}

// Save replaces the file.
func (f *File) Save(data []byte) error { return f.dir.Replace(f.name, data, 0o600, rootdir.Keep) }
