package statedir

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

// TestTheLockAdmitsOne until it is closed. Who has it may ask for it again.
func TestTheLockAdmitsOne(t *testing.T) {
	for name, path := range map[string]string{
		"memory": inMemory(t),
		"disk":   onDisk(t),
	} {
		t.Run(name, func(t *testing.T) {
			first, second := opened(t, path), opened(t, path)
			if err := errors.Join(first.TryLock(), first.TryLock()); err != nil {
				t.Fatal(err)
			}
			if err := first.Unlockable(); err != nil {
				t.Errorf("nothing keeps others out: %v", err)
			}
			if err := second.TryLock(); !errors.Is(err, ErrLocked) || !strings.Contains(err.Error(), path) {
				t.Errorf("a second one: %v", err)
			}
			if err := first.Close(); err != nil {
				t.Fatal(err)
			}
			if err := second.TryLock(); err != nil {
				t.Errorf("after the first one: %v", err)
			}
			if err := opened(t, path).TryLock(); !errors.Is(err, ErrLocked) {
				t.Errorf("a third one: %v", err)
			}
		})
	}
}

// TestLockWaitsUntilTheOtherIsGone and tells who is in when it may wait no longer.
func TestLockWaitsUntilTheOtherIsGone(t *testing.T) {
	path := inMemory(t)
	synctest.Test(t, func(t *testing.T) {
		first, second := opened(t, path), opened(t, path)
		if err := first.TryLock(); err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		defer cancel()
		if err := second.Lock(ctx); !errors.Is(err, ErrLocked) {
			t.Errorf("it waited for the other: %v", err)
		}
		if took := time.Since(began); took < 3*time.Second || took > 4*time.Second {
			t.Errorf("it gave up after %v", took)
		}
		const in = 62 * time.Second
		time.AfterFunc(in, func() { _ = first.Close() })
		began = time.Now()
		if err := second.Lock(t.Context()); err != nil {
			t.Errorf("after the other: %v", err)
		}
		if took := time.Since(began); took < in || took > in+time.Second {
			t.Errorf("the other had the lock for %v, and it has it after %v", in, took)
		}
	})
}

// TestLockReturnsOtherErrorsAtOnce as no waiting helps with them.
func TestLockReturnsOtherErrorsAtOnce(t *testing.T) {
	path := inMemory(t)
	s := opened(t, path)
	lock := filepath.Join(path, "lock")
	if err := os.Mkdir(lock, 0o700); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	err := s.Lock(ctx)
	if ctx.Err() != nil {
		t.Error("it has tried again until it might no longer")
	}
	if err == nil || errors.Is(err, ErrLocked) || !strings.HasPrefix(err.Error(), "open "+lock+": ") ||
		!strings.HasSuffix(err.Error(), ": remove what is there") {
		t.Errorf("got %v", err)
	}
	if err := errors.Join(os.Remove(lock), s.TryLock()); err != nil {
		t.Errorf("after it was removed: %v", err)
	}
}

// TestWhoOnlyAsksKeepsNobodyOut has a lock that is shared for a moment, as Look's is, and one that stays.
func TestWhoOnlyAsksKeepsNobodyOut(t *testing.T) {
	path := inMemory(t)
	synctest.Test(t, func(t *testing.T) {
		s := opened(t, path)
		look := func(while time.Duration) {
			f, err := os.OpenFile(filepath.Join(path, "lock"), os.O_RDONLY|os.O_CREATE, 0o600)
			if err != nil {
				t.Fatal(err)
			}
			if err := syscall.Flock(int(f.Fd()), syscall.LOCK_SH|syscall.LOCK_NB); err != nil {
				t.Fatal(err)
			}
			time.AfterFunc(while, func() { _ = f.Close() })
		}
		look(2 * asking)
		if err := s.TryLock(); !errors.Is(err, ErrLocked) {
			t.Errorf("with one that stays: %v", err)
		}
		time.Sleep(2 * asking)
		look(asking / 2)
		if err := s.TryLock(); err != nil {
			t.Errorf("with one that only asks: %v", err)
		}
	})
}

// TestTheLockIsInTheDirectoryThatOthersFind though the one that was opened has been removed, or replaced, since.
func TestTheLockIsInTheDirectoryThatOthersFind(t *testing.T) {
	for name, change := range map[string]func(t *testing.T, path string){
		"removed": func(t *testing.T, path string) {
			if err := os.Remove(path); err != nil {
				t.Fatal(err)
			}
		},
		"replaced": func(t *testing.T, path string) { replaced(t, path) },
	} {
		t.Run(name, func(t *testing.T) {
			path := inMemory(t)
			s := opened(t, path)
			change(t, path)
			if err := s.TryLock(); err != nil {
				t.Fatal(err)
			}
			if err := opened(t, path).TryLock(); !errors.Is(err, ErrLocked) {
				t.Errorf("it keeps nobody out: %v", err)
			}
			if err := s.Journal("").Save(t.Context(), always("mine")); err != nil {
				t.Fatal(err)
			}
			holds(t, filepath.Join(path, "journal.json"), "mine")
		})
	}
}

// TestNoLockInADirectoryThatIsNotOurs any more, which has taken the place of the one that was opened.
func TestNoLockInADirectoryThatIsNotOurs(t *testing.T) {
	path := inMemory(t)
	s := opened(t, path)
	replaced(t, path)
	if err := os.Chmod(path, 0o777); err != nil {
		t.Fatal(err)
	}
	if err := s.TryLock(); err == nil || !strings.Contains(err.Error(), "is open to others") {
		t.Errorf("got %v", err)
	}
	if _, err := os.Lstat(filepath.Join(path, "lock")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("it has left a lock there: %v", err)
	}
}
