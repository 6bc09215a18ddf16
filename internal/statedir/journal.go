package statedir

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"github.com/balena-injector/injector/internal/rootdir"
)

// maxJournal caps what is read: some 400 keys.
const maxJournal = 256 << 10

// journalName is the file of a slot's journal: each key of several has one of its own, since a
// thousand of them in one file would be written thousands of times.
func journalName(slot string) string {
	if slot == "" {
		return "journal.json"
	}
	return "journal-" + slot + ".json"
}

// Slots lists the slots that have a journal in the directory.
func (s *Dir) Slots() ([]string, error) {
	names, err := s.current().Names()
	var slots []string
	for _, name := range names {
		if name == journalName("") {
			slots = append(slots, "")
		} else if slot, ok := strings.CutPrefix(name, "journal-"); ok {
			if slot, ok = strings.CutSuffix(slot, ".json"); ok && slot != "" {
				slots = append(slots, slot)
			}
		}
	}
	slices.Sort(slots)
	return slots, err
}

// Journal is where the agent of one slot keeps its journal (an agent.Store). It is safe for concurrent use.
type Journal struct {
	dir  *Dir
	slot string

	mu       sync.Mutex
	renewals int               // of the directory, that the journal has followed
	last     [sha256.Size]byte // what was loaded or saved last; zero: nothing
	tried    [sha256.Size]byte // what was to be saved last: a failure may come after its effect
}

// Journal returns the journal of a slot, which need not exist. A slot tells several agents of one directory apart; the
// only one has an empty slot.
func (s *Dir) Journal(slot string) *Journal { return &Journal{dir: s, slot: slot} }

// Load returns what is stored, nil if nothing is.
func (j *Journal) Load(context.Context) ([]byte, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.renewals, _ = j.dir.Follow()
	data, err := j.dir.Read(journalName(j.slot), maxJournal)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		j.last = [sha256.Size]byte{}
		return nil, nil
	case err != nil:
		return nil, err
	}
	j.last = sha256.Sum256(data)
	return data, nil
}

// Save replaces what was loaded or saved last by what encode returns, which is told whether live secrets may be stored:
// only in memory. It writes where a later start looks, if another directory has taken the place of this one. The lock
// keeps others from writing there meanwhile; where the file system has no locks, a journal that another process has
// written is not replaced.
func (j *Journal) Save(_ context.Context, encode func(secrets bool) ([]byte, error)) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	err := j.save(encode)
	if errors.Is(err, os.ErrClosed) { // somebody has found another directory in this one's place just now
		err = j.save(encode)
	}
	return err
}

func (j *Journal) save(encode func(secrets bool) ([]byte, error)) error {
	renewals, err := j.dir.Follow()
	if err != nil {
		return err
	}
	dir, memory := j.dir.now()
	data, err := encode(memory)
	if err != nil {
		return err
	}
	name := journalName(j.slot)
	if j.dir.Unlockable() != nil && renewals == j.renewals { // in another directory lies what was written elsewhere
		now, err := dir.ReadOwn(name, maxJournal)
		if sum := sha256.Sum256(now); err == nil && sum != j.last && sum != j.tried {
			return fmt.Errorf("another process has written %s since, and nothing locks it", filepath.Join(dir.Path(), name))
		}
	}
	j.tried = sha256.Sum256(data)
	if err := dir.Replace(name, data, 0o600, rootdir.Keep); err != nil {
		return err
	}
	j.last, j.renewals = j.tried, renewals
	return nil
}

// Displaced reports whether what was saved last lies where a later start would not find it, so that it is to be saved
// again: another directory has taken the place of this one.
func (j *Journal) Displaced() bool {
	renewals, err := j.dir.Follow()
	j.mu.Lock()
	defer j.mu.Unlock()
	return err == nil && renewals != j.renewals
}

// SetAside renames what is stored, so that no Load finds it, and returns its new path.
func (j *Journal) SetAside(context.Context) (where string, err error) {
	name := journalName(j.slot)
	aside := name + ".unusable"
	return filepath.Join(j.dir.Path(), aside), j.dir.Root().Rename(name, aside)
}

// Sweep removes what a process that was killed left half written.
func (j *Journal) Sweep() error { return j.dir.current().Sweep(journalName(j.slot)) }

// Remove removes what is stored.
func (j *Journal) Remove() error { return j.dir.current().Remove(journalName(j.slot)) }
