package statedir

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/balena-injector/injector/internal/rootdir"
)

// ErrLocked is returned when another agent works in a state directory.
var ErrLocked = errors.New("another injector is using this state directory")

const (
	lockFile = "lock"
	lockPoll = 100 * time.Millisecond
	asking   = 5 * time.Millisecond
)

// TryLock keeps other agents out until Close. It returns ErrLocked if one is in.
func (s *Dir) TryLock() error {
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
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		if try == 3 {
			return fmt.Errorf("%s does not stay what was locked: remove what is there", filepath.Join(s.dir.Path(), lockFile))
		}
		// Who had the directory has removed it: there is another one, or will be.
		dir, memory, err := open(s.path)
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

// tryLock locks a directory. A file system without locks, such as some network ones, is not a reason not to work there:
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
func (s *Dir) Lock(ctx context.Context) error {
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
