package statedir

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestALockThatIsALinkIsNotALock has two of them lead to one file: neither keeps the other out, and both say so.
func TestALockThatIsALinkIsNotALock(t *testing.T) {
	path := inMemory(t)
	for range 2 {
		s := opened(t, path)
		_ = os.Remove(filepath.Join(path, lockFile))
		put(t, filepath.Join(path, "elsewhere"), "")
		if err := os.Symlink("elsewhere", filepath.Join(path, lockFile)); err != nil {
			t.Fatal(err)
		}
		if err := s.TryLock(); err == nil || !strings.Contains(err.Error(), filepath.Join(path, lockFile)) {
			t.Errorf("got %v", err)
		}
	}
}

// TestAFileIsWrittenWhereThePathLeads when the directory was replaced and nobody has noticed.
func TestAFileIsWrittenWhereThePathLeads(t *testing.T) {
	path := inMemory(t)
	s := locked(t, path)
	old := replaced(t, path)
	if err := s.File("note.json").Save([]byte("new")); err != nil {
		t.Fatal(err)
	}
	holds(t, filepath.Join(path, "note.json"), "new")
	if _, err := os.Stat(filepath.Join(old, "note.json")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("it lies in the old one: %v", err)
	}
}

// TestAJournalThatIsGoneIsNotAnother loads one, which is removed, and then loads nothing: what another process writes is
// not replaced.
func TestAJournalThatIsGoneIsNotAnother(t *testing.T) {
	path := inMemory(t)
	s := locked(t, path)
	s.unlockable = errors.New("no locks here")
	j := s.Journal("")
	put(t, filepath.Join(path, "journal.json"), "first")
	if _, err := j.Load(context.Background()); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(filepath.Join(path, "journal.json")); err != nil {
		t.Fatal(err)
	}
	if raw, err := j.Load(context.Background()); err != nil || raw != nil {
		t.Errorf("%q, %v", raw, err)
	}
	put(t, filepath.Join(path, "journal.json"), "first") // by somebody else, who had it before
	if err := j.Save(context.Background(), always("second")); err == nil {
		t.Error("another process's journal was replaced")
	}
	holds(t, filepath.Join(path, "journal.json"), "first")
}

// TestAJournalWithoutASlotInItsName is nobody's.
func TestAJournalWithoutASlotInItsName(t *testing.T) {
	path := inMemory(t)
	s := locked(t, path)
	put(t, filepath.Join(path, "journal-.json"), "x")
	if slots, err := s.Slots(); err != nil || len(slots) != 0 {
		t.Errorf("%q, %v", slots, err)
	}
}

// TestLookSaysThatALinkIsNotADirectory in the words of Open.
func TestLookSaysThatALinkIsNotADirectory(t *testing.T) {
	path := inMemory(t)
	if err := os.Symlink(t.TempDir(), path); err != nil {
		t.Fatal(err)
	}
	_, looked := Look(path)
	_, opened := Open(path)
	if looked == nil || opened == nil || looked.Error() != opened.Error() {
		t.Errorf("%v; %v", looked, opened)
	}
}

// TestAClosedDirectoryIsNotMadeAnew by a note that comes late, nor one that was vacated.
func TestAClosedDirectoryIsNotMadeAnew(t *testing.T) {
	nothing := func([]byte) bool { return false }
	for name, end := range map[string]func(*Dir) error{
		"closed":  func(s *Dir) error { return errors.Join(s.Close(), os.RemoveAll(s.Path())) },
		"vacated": func(s *Dir) error { return s.Vacate(nothing, nothing) },
	} {
		path := inMemory(t)
		s := locked(t, path)
		if err := end(s); err != nil {
			t.Fatal(name, err)
		}
		if err := s.File("note.json").Save([]byte("late")); err == nil {
			t.Error(name, "it was saved")
		}
		if _, err := os.Lstat(path); !errors.Is(err, os.ErrNotExist) {
			t.Error(name, "the directory is there again:", err)
		}
	}
}

// TestAJournalGoesOnInAnotherDirectory where nothing locks, although an older one lies there.
func TestAJournalGoesOnInAnotherDirectory(t *testing.T) {
	path := inMemory(t)
	s := locked(t, path)
	s.unlockable = errors.New("no locks here")
	j := s.Journal("")
	if err := j.Save(context.Background(), always("first")); err != nil {
		t.Fatal(err)
	}
	replaced(t, path)
	put(t, filepath.Join(path, "journal.json"), "of long ago")
	if _, err := s.Follow(); err != nil {
		t.Fatal(err)
	}
	s.unlockable = errors.New("no locks here either")
	if err := j.Save(context.Background(), always("second")); err != nil {
		t.Error(err)
	}
	holds(t, filepath.Join(path, "journal.json"), "second")
}
