package statedir

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// TestAJournalIsLoadedAsItWasSaved by this process and by a later one, each slot for itself.
func TestAJournalIsLoadedAsItWasSaved(t *testing.T) {
	path := inMemory(t)
	s := locked(t, path)
	for slot, file := range map[string]string{"": "journal.json", "deploy": "journal-deploy.json"} {
		j := s.Journal(slot)
		if data, err := j.Load(t.Context()); data != nil || err != nil {
			t.Errorf("%q: nothing is saved, and %q is loaded: %v", slot, data, err)
		}
		for _, text := range []string{"the first and longer one of " + slot, "of " + slot} {
			if err := j.Save(t.Context(), always(text)); err != nil {
				t.Fatal(err)
			}
			holds(t, filepath.Join(path, file), text)
			if info, _ := os.Lstat(filepath.Join(path, file)); info.Mode() != 0o600 {
				t.Errorf("%q: mode %v", slot, info.Mode())
			}
		}
	}
	_ = s.Close()
	later := locked(t, path)
	for _, slot := range []string{"", "deploy"} {
		if data, err := later.Journal(slot).Load(t.Context()); string(data) != "of "+slot || err != nil {
			t.Errorf("%q: %q is loaded: %v", slot, data, err)
		}
	}
}

// TestSaveTellsWhetherSecretsMayBeStored only in memory, each time.
func TestSaveTellsWhetherSecretsMayBeStored(t *testing.T) {
	for path, want := range map[string]bool{inMemory(t): true, onDisk(t): false} {
		j := locked(t, path).Journal("")
		for range 2 {
			asked := 0
			err := j.Save(t.Context(), func(secrets bool) ([]byte, error) {
				if asked++; secrets != want {
					t.Errorf("%s: live secrets may be stored: %v", path, secrets)
				}
				return []byte("x"), nil
			})
			if err != nil || asked != 1 {
				t.Errorf("%s: asked %d times: %v", path, asked, err)
			}
		}
	}
}

// TestSaveThatFailsLeavesTheOldJournal and nothing beside it.
func TestSaveThatFailsLeavesTheOldJournal(t *testing.T) {
	path := inMemory(t)
	j := locked(t, path).Journal("")
	if err := j.Save(t.Context(), always("old")); err != nil {
		t.Fatal(err)
	}
	cannot := errors.New("no words for it")
	if err := j.Save(t.Context(), func(bool) ([]byte, error) { return []byte("half"), cannot }); !errors.Is(err, cannot) {
		t.Errorf("got %v", err)
	}
	holds(t, filepath.Join(path, "journal.json"), "old")

	in := locked(t, inMemory(t))
	at := filepath.Join(in.Path(), "journal.json")
	if err := os.MkdirAll(filepath.Join(at, "full"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := in.Journal("").Save(t.Context(), always("new")); err == nil || !strings.Contains(err.Error(), at) {
		t.Errorf("with a directory in its place: %v", err)
	}
	for _, dir := range []string{path, in.Path()} {
		entries, _ := os.ReadDir(dir)
		if got := names(entries); !slices.Equal(got, []string{"journal.json", "lock"}) {
			t.Errorf("left: %v", got)
		}
	}
}

// TestAJournalThatOthersMayHaveWritten is an error, and so is one that is too long. Neither is nothing.
func TestAJournalThatOthersMayHaveWritten(t *testing.T) {
	path := inMemory(t)
	j := locked(t, path).Journal("")
	at := filepath.Join(path, "journal.json")
	put(t, at, string(bytes.Repeat([]byte("x"), maxJournal)))
	if data, err := j.Load(t.Context()); len(data) != maxJournal || err != nil {
		t.Errorf("%d bytes are loaded: %v", len(data), err)
	}
	put(t, at, string(bytes.Repeat([]byte("x"), maxJournal+1)))
	if _, err := j.Load(t.Context()); err == nil {
		t.Error("one that is too long is loaded")
	}
	put(t, at, "x")
	if err := os.Chmod(at, 0o666); err != nil {
		t.Fatal(err)
	}
	if _, err := j.Load(t.Context()); err == nil {
		t.Error("one that others can write is loaded")
	}
}

// TestSetAsideKeepsAJournalThatNoLoadFinds under the path that it returns.
func TestSetAsideKeepsAJournalThatNoLoadFinds(t *testing.T) {
	path := inMemory(t)
	s := locked(t, path)
	j := s.Journal("deploy")
	if _, err := j.SetAside(t.Context()); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("nothing is set aside: %v", err)
	}
	for _, text := range []string{"unusable", "unusable again"} {
		if err := j.Save(t.Context(), always(text)); err != nil {
			t.Fatal(err)
		}
		where, err := j.SetAside(t.Context())
		if err != nil || filepath.Dir(where) != path {
			t.Errorf("set aside as %s: %v", where, err)
		}
		holds(t, where, text)
		if data, err := j.Load(t.Context()); data != nil || err != nil {
			t.Errorf("%q is loaded: %v", data, err)
		}
		if slots, err := s.Slots(); len(slots) != 0 || err != nil {
			t.Errorf("there are slots %q: %v", slots, err)
		}
	}
}

// TestRemoveIsOfOneJournal and no error if there is none.
func TestRemoveIsOfOneJournal(t *testing.T) {
	s := locked(t, inMemory(t))
	for _, slot := range []string{"", "a", "b"} {
		if err := s.Journal(slot).Save(t.Context(), always("x")); err != nil {
			t.Fatal(err)
		}
	}
	for range 2 {
		if err := s.Journal("a").Remove(); err != nil {
			t.Errorf("removing it: %v", err)
		}
		if slots, err := s.Slots(); !slices.Equal(slots, []string{"", "b"}) || err != nil {
			t.Errorf("slots %q are left: %v", slots, err)
		}
	}
}

// TestSlotsAreThoseWithAJournal in order, and not what lies beside journals.
func TestSlotsAreThoseWithAJournal(t *testing.T) {
	path := inMemory(t)
	s := opened(t, path)
	if slots, err := s.Slots(); len(slots) != 0 || err != nil {
		t.Errorf("there are slots %q: %v", slots, err)
	}
	for _, name := range []string{
		"journal-b.json",
		"journal.json",
		"journal-a.json",
		"lock",
		"refused-logins.json",
		"journal-c.json.unusable",
		"journal.json.unusable",
		".journal-d.json.ABC.part",
		"my-journal-e.json",
	} {
		put(t, filepath.Join(path, name), "x")
	}
	if slots, err := s.Slots(); !slices.Equal(slots, []string{"", "a", "b"}) || err != nil {
		t.Errorf("there are slots %q: %v", slots, err)
	}
	_ = s.Close()
	if _, err := s.Slots(); err == nil {
		t.Error("a directory that is closed has slots, or none")
	}
}

// TestWhereNothingLocksAJournalOfAnotherIsNotReplaced whether it was there before, or has changed since. What this
// process has written or read last it may replace.
func TestWhereNothingLocksAJournalOfAnotherIsNotReplaced(t *testing.T) {
	path := inMemory(t)
	s := locked(t, path)
	s.unlockable = errors.New("no locks here")
	if err := s.Unlockable(); err == nil {
		t.Fatal("it does not say that nothing locks it")
	}
	j, at := s.Journal(""), filepath.Join(path, "journal.json")
	save := func(text, left string, good bool) {
		t.Helper()
		err := j.Save(t.Context(), always(text))
		if (err == nil) != good || !good && !strings.Contains(err.Error(), "another process has written "+at) {
			t.Errorf("saving %q: %v", text, err)
		}
		holds(t, at, left)
	}
	put(t, at, "another's, from before")
	save("mine", "another's, from before", false)
	if _, err := j.Load(t.Context()); err != nil {
		t.Fatal(err)
	}
	save("mine", "mine", true)
	save("mine, later", "mine, later", true)
	put(t, at, "another's")
	save("mine, last", "another's", false)
	save("mine, last", "another's", false) // a failure does not make it mine
	if err := os.Remove(at); err != nil {
		t.Fatal(err)
	}
	save("mine, last", "mine, last", true)

	s.unlockable = nil // with a lock nobody else can have written it
	put(t, at, "another's")
	save("mine, at the end", "mine, at the end", true)
}

// TestADirectoryThatCanBeLockedAgain as another file system was mounted, protects a journal by its lock.
func TestADirectoryThatCanBeLockedAgain(t *testing.T) {
	path := inMemory(t)
	s := locked(t, path)
	s.unlockable = errors.New("no locks here")
	replaced(t, path)
	if n, err := s.Follow(); n != 1 || err != nil {
		t.Fatalf("%d renewals: %v", n, err)
	}
	if err := s.Unlockable(); err != nil {
		t.Errorf("it says that nothing locks it: %v", err)
	}
}
