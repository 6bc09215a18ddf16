package agent

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"github.com/balena-injector/injector/internal/rootdir"
)

// StateDir is the directory that holds an agent's journal and lock. Only its owner may enter. It is
// safe for concurrent use.
type StateDir struct {
	path         string
	mu           sync.Mutex
	dir          *rootdir.Dir
	keepsSecrets bool
	lock         *os.File
	unlockable   error  // why nothing keeps another agent out
	renewed      func() // told of another directory at the path
	renewals     int    // how often there was one
	following    sync.Mutex
	signed       Process // see Sign
}

// ErrLocked is returned when another agent works in a state directory.
var ErrLocked = errors.New("another injector is using this state directory")

const (
	lockFile = "lock"
	lockPoll = 100 * time.Millisecond
	asking   = 5 * time.Millisecond
)

// OpenStateDir opens the directory, and makes it (0700) if it does not exist yet. It refuses one
// that belongs to somebody else or that others may enter.
func OpenStateDir(path string) (*StateDir, error) {
	dir, memory, err := openStateDir(path)
	if err != nil {
		return nil, err
	}
	return &StateDir{path: path, dir: dir, keepsSecrets: memory}, nil
}

func openStateDir(path string) (dir *rootdir.Dir, memory bool, err error) {
	if err := os.Mkdir(path, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, false, fmt.Errorf("make the state directory %s: %w", path, errors.Unwrap(err))
	}
	link, err := os.Lstat(path)
	if err != nil {
		return nil, false, err
	}
	if !link.IsDir() {
		return nil, false, fmt.Errorf("the state directory %s is not a directory", path)
	}
	if stat, ok := link.Sys().(*syscall.Stat_t); ok && int(stat.Uid) != os.Getuid() {
		return nil, false, notOurs(path, stat.Uid)
	}
	if dir, err = rootdir.Open(path); err != nil {
		return nil, false, fmt.Errorf("the state directory: %w", err)
	}
	if memory, err = checkStateDir(dir, link); err != nil {
		return nil, false, errors.Join(err, dir.Close())
	}
	return dir, memory, nil
}

// checkStateDir looks at the directory that was opened, not at what its path leads to by now,
// and tells whether it is in memory.
func checkStateDir(dir *rootdir.Dir, link fs.FileInfo) (memory bool, err error) {
	path := dir.Path()
	info, err := dir.Root().Stat(".")
	if err != nil {
		return false, fmt.Errorf("the state directory %s: %w", path, errors.Unwrap(err))
	}
	stat, ok := info.Sys().(*syscall.Stat_t)
	switch {
	case !os.SameFile(link, info):
		return false, fmt.Errorf("the state directory %s was replaced while it was opened", path)
	case ok && int(stat.Uid) != os.Getuid():
		return false, notOurs(path, stat.Uid)
	case info.Mode().Perm()&0o077 != 0: // the setgid bit that a Kubernetes fsGroup sets is no harm
		return false, fmt.Errorf("the state directory %s is open to others (mode %04o): give a directory of its own, or "+
			"chmod 0700 it if it is one", path, info.Mode().Perm())
	}
	return dir.InMemory()
}

func notOurs(path string, owner uint32) error {
	return fmt.Errorf("the state directory %s belongs to user %d and this is user %d: run as that user, remove it, or set "+
		"another INJECTOR_STATE_DIR", path, owner, os.Getuid())
}

// Path is where the directory is.
func (s *StateDir) Path() string { return s.path }

// Root is the open directory, as long as the path leads to it.
func (s *StateDir) Root() *os.Root { return s.current().Root() }

func (s *StateDir) current() *rootdir.Dir {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.dir
}

// KeepsSecrets tells whether the journal may hold live secrets: only in memory.
func (s *StateDir) KeepsSecrets() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.keepsSecrets
}

// OnRenewal calls f whenever another directory was opened at the path: see Follow.
func (s *StateDir) OnRenewal(f func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.renewed = f
}

// Unlockable returns why the lock keeps nobody out: the file system knows none. nil if it does.
func (s *StateDir) Unlockable() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.unlockable
}

// Read returns the bytes of a file of at most limit bytes, which nobody but this user may have written.
func (s *StateDir) Read(name string, limit int) ([]byte, error) {
	return s.current().ReadOwn(name, limit)
}

// Sweep removes what an earlier process left half written of a file.
func (s *StateDir) Sweep(name string) error { return s.current().Sweep(name) }

// Replace makes a file hold data.
func (s *StateDir) Replace(name string, data []byte, mode fs.FileMode) error {
	return s.current().Replace(name, data, mode, rootdir.Keep)
}

// Follow sees to it that the open directory is the one at the path. If the volume was mounted again
// or somebody removed the directory, it opens (and makes) what is there and locks it: a journal that
// nobody would find is no record. The old one is closed: a caller that still uses it gets os.ErrClosed. It returns how often
// there was another directory; each time all journals must be written again.
func (s *StateDir) Follow() (renewals int, err error) {
	s.following.Lock()
	defer s.following.Unlock()
	if s.current().Moved() {
		err = s.renew()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.renewals, err
}

func (s *StateDir) renew() error {
	dir, memory, err := openStateDir(s.path)
	if err != nil {
		return fmt.Errorf("the state directory was removed or is another one now: %w", err)
	}
	s.mu.Lock()
	locked := s.lock != nil
	s.mu.Unlock()
	var lock *os.File
	var unlockable error
	if locked {
		if lock, unlockable, err = tryLock(dir); err != nil {
			return errors.Join(err, dir.Close())
		}
	}
	s.mu.Lock()
	if s.lock != nil {
		_ = s.lock.Close()
	}
	old := s.dir
	s.dir, s.lock, s.unlockable, s.keepsSecrets = dir, lock, unlockable, memory
	sign(lock, s.signed)
	s.renewals++
	renewed := s.renewed
	s.mu.Unlock()
	_ = old.Close()
	if renewed != nil {
		renewed()
	}
	return nil
}

// TryLock keeps other agents out until Close. It returns ErrLocked if one is in.
func (s *StateDir) TryLock() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.lock != nil {
		return nil
	}
	for try := 0; ; try++ {
		lock, unlockable, err := tryLock(s.dir)
		if err == nil && !stale(s.dir, lock) {
			s.lock, s.unlockable = lock, unlockable
			return nil
		}
		if err == nil {
			_ = lock.Close()
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) || try == 3 {
			return err
		}
		// Who had the directory has removed it: there is another one, or will be.
		dir, memory, err := openStateDir(s.path)
		if err != nil {
			return err
		}
		_ = s.dir.Close()
		s.dir, s.keepsSecrets = dir, memory
	}
}

// stale reports whether a lock keeps nobody out: its file is not the one that others find.
func stale(dir *rootdir.Dir, lock *os.File) bool {
	mine, err := lock.Stat()
	theirs, e := dir.Root().Lstat(lockFile)
	return dir.Moved() || err != nil || e != nil || !os.SameFile(mine, theirs)
}

// tryLock locks a directory. A file system without locks, such as some network ones, is no reason not to work there:
// what the lock would keep out is a mistake.
func tryLock(dir *rootdir.Dir) (lock *os.File, unlockable, err error) {
	path := filepath.Join(dir.Path(), lockFile)
	f, err := dir.Root().OpenFile(lockFile, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		if p, ok := errors.AsType[*fs.PathError](err); ok {
			err = p.Err
		}
		return nil, nil, fmt.Errorf("open %s: %w: remove what is there", path, err)
	}
	err = syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	if errors.Is(err, syscall.EWOULDBLOCK) { // perhaps somebody is only asking who has it: see Look
		time.Sleep(asking)
		err = syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	}
	switch {
	case err == nil:
		return f, nil, nil
	case errors.Is(err, syscall.EWOULDBLOCK):
		_ = f.Close()
		return nil, nil, fmt.Errorf("%w: %s", ErrLocked, dir.Path())
	case errors.Is(err, syscall.ENOLCK), errors.Is(err, syscall.ENOSYS), errors.Is(err, syscall.ENOTSUP), errors.Is(err, syscall.EPERM):
		return f, fmt.Errorf("%s cannot be locked: %w", path, err), nil
	}
	_ = f.Close()
	return nil, nil, fmt.Errorf("lock %s: %w", path, err)
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
	s.mu.Lock()
	defer s.mu.Unlock()
	var err error
	if s.lock != nil {
		err = s.lock.Close()
		s.lock = nil
	}
	return errors.Join(err, s.dir.Close())
}

// File is one file of the state directory that others keep their notes in (a balena.Store).
func (s *StateDir) File(name string) *File {
	return &File{name, s.Read, s.Replace}
}

// NewFile returns the file of that name in dir. It need not exist. One that somebody else wrote, or that is open to
// others, is not read.
func NewFile(dir *rootdir.Dir, name string) *File {
	return &File{name, dir.ReadOwn, func(name string, data []byte, mode fs.FileMode) error {
		return dir.Replace(name, data, mode, rootdir.Keep)
	}}
}

// File is a small private file.
type File struct {
	name    string
	read    func(name string, limit int) ([]byte, error)
	replace func(name string, data []byte, mode fs.FileMode) error
}

const maxFile = 64 << 10

// Load returns the file's bytes, nil without an error if there is no file.
func (f *File) Load() ([]byte, error) {
	data, err := f.read(f.name, maxFile)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return data, err
}

// Save replaces the file.
func (f *File) Save(data []byte) error { return f.replace(f.name, data, 0o600) }
