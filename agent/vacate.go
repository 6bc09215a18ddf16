package agent

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"
)

// Vacate removes the state directory and all that is in it, unless some of it matters to a later start: a key, the pace
// of mints, a budget that is used up, or a file of which matters says so. The caller has the lock, and uses the
// directory no more.
func (s *StateDir) Vacate(matters func(file []byte, now time.Time) bool) error {
	slots, err := s.Slots()
	if err != nil {
		return err
	}
	gone := []string{lockFile}
	for _, slot := range slots {
		raw, err := s.Read(journalName(slot), maxJournal)
		if err != nil {
			return err
		}
		j, err := parseJournal(raw)
		if err != nil {
			return err
		}
		if len(j.Keys) > 0 || j.Mints != (mintRow{}) || !j.Budget.At.IsZero() {
			return errors.New("the next start goes on with what is in its journal")
		}
		gone = append(gone, journalName(slot))
	}
	kept, err := s.besides(gone)
	if err != nil {
		return err
	}
	for _, name := range kept {
		raw, err := s.Read(name, maxFile)
		if err != nil {
			return err
		}
		if !strings.HasSuffix(name, ".json") || matters(raw, time.Now()) {
			return s.removeJournals(gone, fmt.Errorf("%s matters to the next start", name))
		}
	}
	for _, name := range append(kept, gone...) {
		if err := s.current().Remove(name); err != nil {
			return err
		}
	}
	return os.Remove(s.path) // only if it is empty
}

// removeJournals removes the journals, so that the next start counts from one, and returns why the rest stays.
func (s *StateDir) removeJournals(names []string, why error) error {
	for _, name := range names {
		if name != lockFile {
			why = errors.Join(why, s.current().Remove(name))
		}
	}
	return why
}

// besides lists what is in the directory besides those names.
func (s *StateDir) besides(names []string) ([]string, error) {
	all, err := s.current().Names()
	return slices.DeleteFunc(all, func(name string) bool { return slices.Contains(names, name) }), err
}
