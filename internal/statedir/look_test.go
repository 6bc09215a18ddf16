package statedir

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestLookFindsWhatIsThereAndChangesNothing in a directory that nobody uses, that somebody has, and that somebody had.
func TestLookFindsWhatIsThereAndChangesNothing(t *testing.T) {
	path := inMemory(t)
	look := func(want Left) {
		t.Helper()
		before := tree(t, path)
		for range 2 { // it has not locked it either
			if got, err := Look(path); err != nil || !reflect.DeepEqual(got, want) {
				t.Errorf("it finds %+v, not %+v: %v", got, want, err)
			}
		}
		if after := tree(t, path); after != before {
			t.Errorf("it has changed\n%s to\n%s", before, after)
		}
	}
	s := opened(t, path)
	look(Left{})
	if err := s.TryLock(); err != nil {
		t.Fatal(err)
	}
	look(Left{Held: true})

	began := time.Date(2030, 1, 2, 3, 4, 5, 0, time.UTC)
	me := Process{
		PID:     42,
		Command: "run",
		Version: "1.2.3",
		Started: began,
	}
	s.Sign(me)
	at := func(name string) string { return filepath.Join(path, name) }
	put(t, at("journal.json"), "of the only one")
	put(t, at("journal-b.json"), "of b")
	put(t, at("journal-b.json.unusable"), "x")
	put(t, at("notes.json"), "x")
	journals := []LeftJournal{
		{
			Path: at("journal.json"),
			Data: []byte("of the only one"),
		},
		{
			Slot: "b",
			Path: at("journal-b.json"),
			Data: []byte("of b"),
		},
	}
	look(Left{true, &me, journals})

	ended := me
	ended.End, ended.Ended, ended.Error = EndLeft, began.Add(time.Hour), "left keys"
	s.Sign(ended)
	_ = s.Close()
	look(Left{false, &ended, journals})

	shorter := Process{PID: 43, Command: "init", End: EndPublished}
	s = locked(t, path)
	s.Sign(shorter)
	look(Left{true, &shorter, journals})
}

// TestLookTellsOfAJournalThatCannotBeRead beside those that can.
func TestLookTellsOfAJournalThatCannotBeRead(t *testing.T) {
	path := inMemory(t)
	opened(t, path)
	put(t, filepath.Join(path, "journal-a.json"), "of a")
	put(t, filepath.Join(path, "journal-b.json"), "of b")
	if err := os.Chmod(filepath.Join(path, "journal-a.json"), 0o644); err != nil {
		t.Fatal(err)
	}
	left, err := Look(path)
	if err != nil || len(left.Journals) != 2 {
		t.Fatalf("%d journals: %v", len(left.Journals), err)
	}
	if a := left.Journals[0]; a.Err == nil || a.Data != nil || a.Slot != "a" {
		t.Errorf("the one that others may read is %+v", a)
	}
	if b := left.Journals[1]; b.Err != nil || string(b.Data) != "of b" || b.Slot != "b" {
		t.Errorf("the other is %+v", b)
	}
}

// TestLookMakesNoDirectory and takes none that it cannot trust.
func TestLookMakesNoDirectory(t *testing.T) {
	path := inMemory(t)
	if _, err := Look(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("without one: %v", err)
	}
	if _, err := os.Lstat(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("it has made one: %v", err)
	}
	for name, err := range map[string]error{
		"a file":          os.WriteFile(path+"-a-file", nil, 0o600),
		"a link":          errors.Join(os.Mkdir(path+"-there", 0o700), os.Symlink(path+"-there", path+"-a-link")),
		"a dangling link": os.Symlink("nothing", path+"-a-dangling-link"),
		"open to others":  errors.Join(os.Mkdir(path+"-open-to-others", 0o700), os.Chmod(path+"-open-to-others", 0o750)),
	} {
		if err != nil {
			t.Fatal(err)
		}
		if left, err := Look(path + "-" + strings.ReplaceAll(name, " ", "-")); err == nil {
			t.Errorf("%s: it finds %+v", name, left)
		}
	}
	if _, err := Look(anothers(t)); err == nil || !strings.Contains(err.Error(), "belongs to user") {
		t.Errorf("another user's: %v", err)
	}
}

// TestLookIsNotMisledByWhatIsNoLock nor kept waiting by it. A lock's file that nobody has signed tells of nobody.
func TestLookIsNotMisledByWhatIsNoLock(t *testing.T) {
	path := inMemory(t)
	opened(t, path)
	lock := filepath.Join(path, "lock")
	for name, plant := range map[string]func() error{
		"a directory":      func() error { return os.Mkdir(lock, 0o700) },
		"a pipe":           func() error { return syscall.Mkfifo(lock, 0o600) },
		"a link elsewhere": func() error { return os.Symlink("/etc/hostname", lock) },
	} {
		if err := plant(); err != nil {
			t.Fatal(err)
		}
		if left, err := Look(path); err == nil {
			t.Errorf("%s: it finds %+v", name, left)
		}
		if err := os.Remove(lock); err != nil {
			t.Fatal(err)
		}
	}
	for _, text := range []string{"", "{", "4711\n", `{"pid":0,"command":"run"}`, `{"pid":"x"}`} {
		put(t, lock, text)
		if left, err := Look(path); err != nil || left.Last != nil || left.Held {
			t.Errorf("signed with %q: %+v, %v", text, left, err)
		}
	}
}

// TestOnlyTheOneWithTheLockSigns and none without a process id. What it does not say is not written.
func TestOnlyTheOneWithTheLockSigns(t *testing.T) {
	path := inMemory(t)
	s := locked(t, path)
	me := Process{PID: 42, Command: "run"}
	s.Sign(me)
	raw, err := os.ReadFile(filepath.Join(path, "lock"))
	var fields map[string]any
	if err != nil || json.Unmarshal(raw, &fields) != nil || fields["pid"] != 42.0 {
		t.Fatalf("it is signed with %s: %v", raw, err)
	}
	for _, name := range []string{"end", "ended", "error"} {
		if _, ok := fields[name]; ok {
			t.Errorf("one that runs has signed with %q: %s", name, raw)
		}
	}
	other := opened(t, path)
	other.Sign(Process{PID: 43})
	s.Sign(Process{Command: "nobody"})
	holds(t, filepath.Join(path, "lock"), string(raw))
}
