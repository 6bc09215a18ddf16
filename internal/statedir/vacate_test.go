package statedir

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// TestVacateRemovesWhatMattersToNobody the directory with it, and keeps what matters.
func TestVacateRemovesWhatMattersToNobody(t *testing.T) {
	all := []string{"journal.json", "journal-b.json", "notes.json", "other.json"}
	for name, c := range map[string]struct {
		has    []string
		matter []string // those of them that matter
		open   string   // one that others may write
		says   string
		left   []string // beside the lock; nil: the directory is gone
	}{
		"nothing at all": {},
		"nothing that matters": {
			has: all,
		},
		"a journal": {
			has:    all,
			matter: []string{"journal-b.json"},
			says:   "the next start goes on with what is in its journal",
			left:   all,
		},
		"a journal and a file": {
			has:    all,
			matter: []string{"journal.json", "notes.json"},
			says:   "the next start goes on with what is in its journal",
			left:   all,
		},
		"a file": {
			has:    []string{"journal.json", "journal-b.json", "notes.json"},
			matter: []string{"notes.json"},
			says:   "notes.json matters to the next start",
			left:   []string{"notes.json"},
		},
		"a file of somebody else": {
			has:  []string{"journal.json", "token"},
			says: "token matters to the next start",
			left: []string{"token"},
		},
		"a journal that was set aside": {
			has:  []string{"journal.json", "journal.json.unusable"},
			says: "journal.json.unusable matters to the next start",
			left: []string{"journal.json.unusable"},
		},
		"a journal that cannot be read": {
			has:  all,
			open: "journal.json",
			says: "journal.json is open to others",
			left: all,
		},
		"a file that cannot be read": {
			has:  all,
			open: "notes.json",
			says: "notes.json is open to others",
			left: all,
		},
	} {
		t.Run(name, func(t *testing.T) {
			path := inMemory(t)
			s := locked(t, path)
			for _, file := range c.has {
				put(t, filepath.Join(path, file), file)
			}
			if c.open != "" {
				if err := os.Chmod(filepath.Join(path, c.open), 0o666); err != nil {
					t.Fatal(err)
				}
			}
			matters := func(journal bool) func(data []byte) bool {
				return func(data []byte) bool {
					if strings.HasPrefix(string(data), "journal") != journal {
						t.Errorf("asked about %s: as a journal: %v", data, journal)
					}
					return slices.Contains(c.matter, string(data))
				}
			}
			err := s.Vacate(matters(true), matters(false))
			if c.left == nil {
				if _, e := os.Lstat(path); err != nil || !errors.Is(e, os.ErrNotExist) {
					t.Errorf("it is not gone: %v, %v", err, e)
				}
				return
			}
			if err == nil || !strings.Contains(err.Error(), c.says) {
				t.Errorf("it says: %v", err)
			}
			entries, _ := os.ReadDir(path)
			want := append([]string{"lock"}, c.left...)
			slices.Sort(want)
			if got := names(entries); !slices.Equal(got, want) {
				t.Errorf("left: %v, not %v", got, want)
			}
			if err := opened(t, path).TryLock(); !errors.Is(err, ErrLocked) {
				t.Errorf("the lock is gone: %v", err)
			}
		})
	}
}

// TestVacateRemovesNoDirectoryInADirectory as it did not make it.
func TestVacateRemovesNoDirectoryInADirectory(t *testing.T) {
	path := inMemory(t)
	s := locked(t, path)
	put(t, filepath.Join(path, "journal.json"), "x")
	if err := os.MkdirAll(filepath.Join(path, "deeper", "deepest"), 0o700); err != nil {
		t.Fatal(err)
	}
	no := func([]byte) bool { return false }
	if err := s.Vacate(no, no); err == nil || !strings.Contains(err.Error(), "deeper is not a regular file") {
		t.Errorf("it says: %v", err)
	}
	if _, err := os.Lstat(filepath.Join(path, "deeper", "deepest")); err != nil {
		t.Error(err)
	}
}

// TestVacateRemovesNothingThatCameMeanwhile as nobody has been asked whether it matters.
func TestVacateRemovesNothingThatCameMeanwhile(t *testing.T) {
	path := inMemory(t)
	s := locked(t, path)
	put(t, filepath.Join(path, "notes.json"), "x")
	no := func([]byte) bool { return false }
	err := s.Vacate(no, func([]byte) bool {
		put(t, filepath.Join(path, "late.json"), "late")
		return false
	})
	if err == nil || !strings.Contains(err.Error(), path) {
		t.Errorf("it says: %v", err)
	}
	holds(t, filepath.Join(path, "late.json"), "late")
}

// TestWhoWaitedForAPlaceThatWasVacated makes another one, which is its own.
func TestWhoWaitedForAPlaceThatWasVacated(t *testing.T) {
	path := inMemory(t)
	first, second := locked(t, path), opened(t, path)
	if err := second.TryLock(); !errors.Is(err, ErrLocked) {
		t.Fatalf("both have the lock: %v", err)
	}
	no := func([]byte) bool { return false }
	if err := errors.Join(first.Vacate(no, no), first.Close(), second.TryLock()); err != nil {
		t.Fatal(err)
	}
	if err := second.Journal("").Save(t.Context(), always("mine")); err != nil {
		t.Fatal(err)
	}
	holds(t, filepath.Join(path, "journal.json"), "mine")
	if left, err := Look(path); err != nil || !left.Held || len(left.Journals) != 1 {
		t.Errorf("it finds %+v: %v", left, err)
	}
}
