package agent

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
	"github.com/balena-injector/injector/key"
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
func (s *StateDir) Sign(p Process) {
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

// Rest is what a state directory says while no agent answers in it.
type Rest struct {
	Held   bool     // somebody has the lock all the same
	Broken error    // why a journal cannot be read; nil if all can
	Last   *Process // nil: not known
	Keys   []RestingKey
}

// RestingKey is what the journal of one slot says.
type RestingKey struct {
	Slot    string
	Outputs []string      // the paths that were written
	Ahead   time.Duration // how far the local clock was ahead of the server's
	URL     string        // the API's
	Waits   time.Duration // how long the next start waits before it mints
	Secret  key.Secret    // of the key that apps read; absent on a disk
	Status                // without a plan: what the journal names
}

// Look reads a state directory as it lies there, and changes nothing. The error wraps fs.ErrNotExist if there is none.
func Look(path string) (Rest, error) {
	var r Rest
	link, err := os.Lstat(path)
	if err != nil {
		return r, err
	}
	dir, err := rootdir.Open(path)
	if err != nil {
		return r, err
	}
	s := &StateDir{path: path, dir: dir}
	defer func() { _ = s.Close() }()
	if _, err := checkStateDir(dir, link); err != nil {
		return r, err
	}
	if r.Held, r.Last, err = readLock(dir); err != nil {
		return r, err
	}
	slots, err := s.Slots()
	for _, slot := range slots {
		raw, e := s.Read(journalName(slot), maxJournal)
		var j journal
		if e == nil {
			j, e = parseJournal(raw)
		}
		if e != nil {
			r.Broken = errors.Join(r.Broken, fmt.Errorf("%s: %w", filepath.Join(path, journalName(slot)), e))
			continue
		}
		r.Keys = append(r.Keys, j.rest(slot))
	}
	return r, err
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

// rest sorts the keys of a journal for people.
func (j journal) rest(slot string) RestingKey {
	k := RestingKey{Slot: slot, Outputs: j.Outputs, Ahead: j.Ahead, Waits: j.Mints.wait(time.Now()), Status: Status{Phase: "at rest", Generation: j.Generation, Live: len(j.Keys)}}
	for _, r := range j.Keys {
		h := &holding{rec: r, retireAt: instant{wall: r.RetireAt}}
		status := h.status()
		switch {
		case r.State == published && k.Key == nil:
			k.Key, k.Secret = &status, key.NewSecret(r.Secret)
			k.Schedule.ExpiresAt = r.latest()
		case (r.State == minting || r.State == minted) && k.Coming == nil:
			k.Coming = &status
		default:
			k.Old = append(k.Old, status)
		}
		k.UserID, k.URL = r.UserID, r.URL
	}
	k.Counts.Unrevoked = j.Unrevoked
	return k
}
