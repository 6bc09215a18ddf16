package statedir

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"sync"
	"syscall"

	"github.com/balena-injector/injector/internal/rootdir"
)

// Dir is an open state directory. Only its owner may enter it. It is safe for concurrent use. Make it with Open.
type Dir struct {
	path         string
	mu           sync.Mutex
	dir          *rootdir.Dir
	keepsSecrets bool
	lock         *os.File
	unlockable   error  // why nothing keeps another agent out
	renewed      func() // told of another directory at the path
	renewals     int    // how often there was one
	following    sync.Mutex
	closed       bool    // nothing is made anew any more
	signed       Process // see Sign
}

// Open opens the directory, and makes it (0700) if it does not exist yet. It refuses one
// that belongs to somebody else or that others may enter.
func Open(path string) (*Dir, error) {
	dir, memory, err := open(path)
	if err != nil {
		return nil, err
	}
	return &Dir{path: path, dir: dir, keepsSecrets: memory}, nil
}

func open(path string) (dir *rootdir.Dir, memory bool, err error) {
	if err := os.Mkdir(path, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, false, fmt.Errorf("make the state directory %s: %w", path, errors.Unwrap(err))
	}
	link, err := os.Lstat(path)
	if err != nil {
		return nil, false, err
	}
	if !link.IsDir() {
		return nil, false, notDirectory(path)
	}
	if stat, ok := link.Sys().(*syscall.Stat_t); ok && int(stat.Uid) != os.Getuid() {
		return nil, false, notOurs(path, stat.Uid)
	}
	if dir, err = rootdir.Open(path); err != nil {
		return nil, false, fmt.Errorf("the state directory: %w", err)
	}
	if memory, err = check(dir, link); err != nil {
		return nil, false, errors.Join(err, dir.Close())
	}
	return dir, memory, nil
}

// check looks at the directory that was opened, not at what its path leads to by now,
// and reports whether it is in memory.
func check(dir *rootdir.Dir, link fs.FileInfo) (memory bool, err error) {
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
	case info.Mode().Perm()&0o077 != 0: // the setgid bit that a Kubernetes fsGroup sets does no harm
		return false, fmt.Errorf("the state directory %s is open to others (mode %04o): give a directory of its own, or "+
			"chmod 0700 it if it is one", path, info.Mode().Perm())
	}
	return dir.InMemory()
}

func notDirectory(path string) error {
	return fmt.Errorf("the state directory %s is not a directory", path)
}

func notOurs(path string, owner uint32) error {
	return fmt.Errorf("the state directory %s belongs to user %d and this is user %d: run as that user, remove it, or set "+
		"another INJECTOR_STATE_DIR", path, owner, os.Getuid())
}

// Path is where the directory is.
func (s *Dir) Path() string { return s.path }

// Root is the open directory, as long as the path leads to it.
func (s *Dir) Root() *os.Root { return s.current().Root() }

func (s *Dir) current() *rootdir.Dir {
	dir, _ := s.now()
	return dir
}

// now returns the open directory and whether it is in memory.
func (s *Dir) now() (dir *rootdir.Dir, memory bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.dir, s.keepsSecrets
}

// KeepsSecrets reports whether journals may hold live secrets: only in memory.
func (s *Dir) KeepsSecrets() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.keepsSecrets
}

// OnRenewal calls f whenever another directory was opened at the path: see Follow.
func (s *Dir) OnRenewal(f func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.renewed = f
}

// Unlockable returns why the lock keeps nobody out: the file system knows none. nil if it does.
func (s *Dir) Unlockable() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.unlockable
}

// Read returns the bytes of a file of at most limit bytes, which nobody but this user may have written.
func (s *Dir) Read(name string, limit int) ([]byte, error) {
	return s.current().ReadOwn(name, limit)
}

// Sweep removes what an earlier process left half written of a file.
func (s *Dir) Sweep(name string) error { return s.current().Sweep(name) }

// Replace makes a file hold data, in the directory that the path leads to now.
func (s *Dir) Replace(name string, data []byte, mode fs.FileMode) error {
	if _, err := s.Follow(); err != nil {
		return err
	}
	return s.current().Replace(name, data, mode, rootdir.Keep)
}

// Follow sees to it that the open directory is the one at the path. If the volume was mounted again
// or somebody removed the directory, it opens (and makes) what is there and locks it: a journal that
// nobody would find is not a record. The old one is closed: a caller that still uses it gets os.ErrClosed. It returns how often
// there was another directory; each time all journals must be written again.
func (s *Dir) Follow() (renewals int, err error) {
	s.following.Lock()
	defer s.following.Unlock()
	s.mu.Lock()
	closed := s.closed
	s.mu.Unlock()
	if closed {
		return 0, os.ErrClosed
	}
	if s.current().Moved() {
		err = s.renew()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.renewals, err
}

func (s *Dir) renew() error {
	dir, memory, err := open(s.path)
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
	if s.closed {
		s.mu.Unlock()
		if lock != nil {
			_ = lock.Close()
		}
		return errors.Join(os.ErrClosed, dir.Close())
	}
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

// Close releases the lock and the directory.
func (s *Dir) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	var err error
	if s.lock != nil {
		err = s.lock.Close()
		s.lock = nil
	}
	return errors.Join(err, s.dir.Close())
}
