package statedir

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
)

// Vacate removes the directory and all that is in it, unless some of it matters to a later start: journals and other
// files are given to their functions, which say so. If only another file matters, the journals are removed, so that the
// next start counts from one. The error is why something stays. The caller has the lock, and uses the Dir no more.
func (s *Dir) Vacate(journalMatters, fileMatters func(data []byte) bool) error {
	slots, err := s.Slots()
	if err != nil {
		return err
	}
	journals := make([]string, len(slots))
	for i, slot := range slots {
		journals[i] = journalName(slot)
		data, err := s.Read(journals[i], maxJournal)
		if err != nil {
			return err
		}
		if journalMatters(data) {
			return errors.New("the next start goes on with what is in its journal")
		}
	}
	others, err := s.besides(append(journals, lockFile))
	if err != nil {
		return err
	}
	for _, name := range others {
		data, err := s.Read(name, maxFile)
		if err != nil {
			return err
		}
		if !strings.HasSuffix(name, ".json") || fileMatters(data) {
			return errors.Join(fmt.Errorf("%s matters to the next start", name), s.remove(journals))
		}
	}
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	if err := s.remove(slices.Concat(others, journals, []string{lockFile})); err != nil {
		return err
	}
	return os.Remove(s.path) // only if it is empty
}

// remove removes files, until one cannot be removed.
func (s *Dir) remove(names []string) error {
	for _, name := range names {
		if err := s.current().Remove(name); err != nil {
			return err
		}
	}
	return nil
}

// besides lists what is in the directory besides those names.
func (s *Dir) besides(names []string) ([]string, error) {
	all, err := s.current().Names()
	return slices.DeleteFunc(all, func(name string) bool { return slices.Contains(names, name) }), err
}
