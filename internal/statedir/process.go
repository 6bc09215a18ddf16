package statedir

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/balena-injector/injector/internal/rootdir"
)

// Process is who has used a state directory last. It lies in the lock's file.
type Process struct {
	PID     int       `json:"pid"`
	Command string    `json:"command"`
	Version string    `json:"version"`
	Started time.Time `json:"started"`
	End     End       `json:"end,omitempty"` // empty: it runs, or was killed
	Ended   time.Time `json:"ended,omitzero"`
	Error   string    `json:"error,omitempty"` // what it ended with; empty if all went well
}

// End is how a process left a state directory.
type End string

// The ways to end.
const (
	EndStopped    End = "stopped"     // it revoked what it had, if it did not fail
	EndHandedOver End = "handed over" // its key is for the next start
	EndPublished  End = "published"   // it was init: its key is for run
	EndLeft       End = "left keys"   // it was stopped, and left keys that it could have revoked
)

// Sign writes down who has the lock. It is worth no error: nothing depends on it but what people are told.
func (s *Dir) Sign(p Process) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.signed = p
	sign(s.lock, p)
}

func sign(lock *os.File, p Process) {
	raw, err := json.Marshal(p)
	if err != nil || lock == nil || p.PID == 0 {
		return
	}
	if lock.Truncate(0) == nil {
		_, _ = lock.WriteAt(append(raw, '\n'), 0)
	}
}

// Left is what lies in a state directory, as it was found without changing anything.
type Left struct {
	Held     bool     // somebody has the lock
	Last     *Process // who used the directory last; nil: not known
	Journals []LeftJournal
}

// LeftJournal is the journal of one slot.
type LeftJournal struct {
	Slot string
	Path string
	Data []byte
	Err  error // why it could not be read; nil if it could
}

// Look reads a state directory as it lies there, and changes nothing. The error wraps fs.ErrNotExist if there is none.
func Look(path string) (Left, error) {
	var l Left
	link, err := os.Lstat(path)
	if err != nil {
		return l, err
	}
	if !link.IsDir() {
		return l, notDirectory(path)
	}
	dir, err := rootdir.Open(path)
	if err != nil {
		return l, err
	}
	s := &Dir{path: path, dir: dir}
	defer func() { _ = s.Close() }()
	if _, err := check(dir, link); err != nil {
		return l, err
	}
	if l.Held, l.Last, err = readLock(dir); err != nil {
		return l, err
	}
	slots, err := s.Slots()
	for _, slot := range slots {
		data, err := s.Read(journalName(slot), maxJournal)
		l.Journals = append(l.Journals, LeftJournal{slot, filepath.Join(path, journalName(slot)), data, err})
	}
	return l, err
}

// readLock reports whether somebody has the lock, and who has signed it last.
func readLock(dir *rootdir.Dir) (held bool, last *Process, err error) {
	f, err := dir.Root().OpenFile(lockFile, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil, nil
	}
	if err != nil {
		return false, nil, err
	}
	defer func() { _ = f.Close() }()
	if info, err := f.Stat(); err != nil || !info.Mode().IsRegular() {
		return false, nil, fmt.Errorf("%s is not a file: remove what is there", filepath.Join(dir.Path(), lockFile))
	}
	held = errors.Is(syscall.Flock(int(f.Fd()), syscall.LOCK_SH|syscall.LOCK_NB), syscall.EWOULDBLOCK)
	raw, err := io.ReadAll(io.LimitReader(f, maxFile))
	var p Process
	if err != nil || json.Unmarshal(raw, &p) != nil || p.PID == 0 {
		return held, nil, nil // of an older version, or being written
	}
	return held, &p, nil
}
