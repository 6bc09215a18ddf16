package statedir

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestFollowOpensWhatIsAtThePath when the directory is removed, and when another one takes its place. It is locked and
// signed as the old one was, and the old one is closed.
func TestFollowOpensWhatIsAtThePath(t *testing.T) {
	for name, change := range map[string]func(t *testing.T, path string){
		"removed": func(t *testing.T, path string) {
			if err := os.RemoveAll(path); err != nil {
				t.Fatal(err)
			}
		},
		"replaced": func(t *testing.T, path string) { replaced(t, path) },
	} {
		t.Run(name, func(t *testing.T) {
			path := inMemory(t)
			s := locked(t, path)
			s.Sign(Process{PID: 42, Command: "run"})
			told := 0
			s.OnRenewal(func() {
				told++
				if _, err := s.Root().Stat("lock"); err != nil { // it can be used there already
					t.Errorf("told of a directory without a lock: %v", err)
				}
			})
			if n, err := s.Follow(); n != 0 || err != nil || told != 0 {
				t.Fatalf("nothing has changed: %d renewals, told %d times: %v", n, told, err)
			}
			for want := 1; want <= 2; want++ {
				old := s.Root()
				change(t, path)
				for range 2 { // the second time there is nothing to follow
					if n, err := s.Follow(); n != want || err != nil {
						t.Fatalf("%d renewals, not %d: %v", n, want, err)
					}
				}
				if told != want {
					t.Errorf("told %d times of %d renewals", told, want)
				}
				if _, err := old.Stat("."); !errors.Is(err, os.ErrClosed) {
					t.Errorf("the old directory is open: %v", err)
				}
				there, err := os.Stat(path)
				here, e := s.Root().Stat(".")
				if err := errors.Join(err, e); err != nil {
					t.Fatal(err)
				}
				if !os.SameFile(here, there) || there.Mode() != os.ModeDir|0o700 {
					t.Errorf("another directory is open than that at the path, or it has mode %v", there.Mode())
				}
				if err := opened(t, path).TryLock(); !errors.Is(err, ErrLocked) {
					t.Errorf("it keeps nobody out: %v", err)
				}
				if left, err := Look(path); err != nil || left.Last == nil || left.Last.PID != 42 {
					t.Errorf("it is not signed: %+v, %v", left.Last, err)
				}
				if err := os.RemoveAll(path + "-old"); err != nil {
					t.Fatal(err)
				}
			}
			s.OnRenewal(nil)
			change(t, path)
			if n, err := s.Follow(); n != 3 || err != nil || told != 2 {
				t.Errorf("%d renewals, told %d times: %v", n, told, err)
			}
		})
	}
}

// TestFollowLocksOnlyWhatWasLocked as a directory that is only read keeps nobody out.
func TestFollowLocksOnlyWhatWasLocked(t *testing.T) {
	path := inMemory(t)
	s := opened(t, path)
	replaced(t, path)
	if n, err := s.Follow(); n != 1 || err != nil {
		t.Fatalf("%d renewals: %v", n, err)
	}
	locked(t, path)
}

// TestFollowTakesNoDirectoryThatIsNotOurs or that another injector is in. What was saved keeps until there is one, and
// then it is written there.
func TestFollowTakesNoDirectoryThatIsNotOurs(t *testing.T) {
	for name, c := range map[string]struct {
		take func(t *testing.T, path string) (free func())
		says string
	}{
		"open to others": {
			func(t *testing.T, path string) func() {
				if err := os.Chmod(path, 0o755); err != nil {
					t.Fatal(err)
				}
				return func() { _ = os.Chmod(path, 0o700) }
			},
			"was removed or is another one now: the state directory %PATH% is open to others",
		},
		"used by another": {
			func(t *testing.T, path string) func() {
				other := locked(t, path)
				return func() { _ = other.Close() }
			},
			ErrLocked.Error() + ": %PATH%",
		},
	} {
		t.Run(name, func(t *testing.T) {
			path := inMemory(t)
			s := locked(t, path)
			j := s.Journal("")
			if err := j.Save(t.Context(), always("mine")); err != nil {
				t.Fatal(err)
			}
			s.OnRenewal(func() { t.Error("told of a directory that is not ours") })
			old := replaced(t, path)
			free := c.take(t, path)
			says := strings.ReplaceAll(c.says, "%PATH%", path)
			if n, err := s.Follow(); n != 0 || err == nil || !strings.Contains(err.Error(), says) {
				t.Errorf("%d renewals: %v", n, err)
			}
			err := j.Save(t.Context(), func(bool) ([]byte, error) {
				t.Error("it asks what to write, and may not write it")
				return nil, nil
			})
			if err == nil || !strings.Contains(err.Error(), says) {
				t.Errorf("it is saved: %v", err)
			}
			if j.Displaced() {
				t.Error("it is to be saved again, where it may not be written")
			}
			holds(t, filepath.Join(path, "journal.json"), "of another volume")
			holds(t, filepath.Join(old, "journal.json"), "mine")

			s.OnRenewal(nil)
			free()
			if !j.Displaced() {
				t.Error("it is not to be saved again in a directory that is ours now")
			}
			if err := j.Save(t.Context(), always("mine")); err != nil {
				t.Fatal(err)
			}
			holds(t, filepath.Join(path, "journal.json"), "mine")
		})
	}
}

// TestAJournalIsDisplacedUntilItIsSavedAgain and each of several for itself.
func TestAJournalIsDisplacedUntilItIsSavedAgain(t *testing.T) {
	path := inMemory(t)
	s := locked(t, path)
	one, two := s.Journal("one"), s.Journal("two")
	for _, j := range []*Journal{one, two} {
		if err := j.Save(t.Context(), always(j.slot)); err != nil {
			t.Fatal(err)
		}
		if j.Displaced() {
			t.Errorf("%s: nothing has changed", j.slot)
		}
	}
	if err := os.RemoveAll(path); err != nil {
		t.Fatal(err)
	}
	for _, j := range []*Journal{one, one, two} { // to ask does not change it
		if !j.Displaced() {
			t.Errorf("%s: the directory was removed, and it is not displaced", j.slot)
		}
	}
	if err := one.Save(t.Context(), always("one again")); err != nil {
		t.Fatal(err)
	}
	if one.Displaced() || !two.Displaced() {
		t.Errorf("one is saved again, and the other is not: displaced are %v and %v", one.Displaced(), two.Displaced())
	}
	if _, err := two.Load(t.Context()); err != nil || two.Displaced() {
		t.Errorf("what is loaded is where a later start finds it: %v", err)
	}
	holds(t, filepath.Join(path, "journal-one.json"), "one again")
}

// TestSaveGoesOnInADirectoryThatIsReplacedMeanwhile by asking again what to write: it may lie on a disk now.
func TestSaveGoesOnInADirectoryThatIsReplacedMeanwhile(t *testing.T) {
	path := inMemory(t)
	s := locked(t, path)
	asked := 0
	err := s.Journal("").Save(t.Context(), func(bool) ([]byte, error) {
		if asked++; asked == 1 {
			replaced(t, path)
			if n, err := s.Follow(); n != 1 || err != nil { // another journal's agent does
				t.Fatalf("%d renewals: %v", n, err)
			}
		}
		return []byte("mine"), nil
	})
	if err != nil || asked != 2 {
		t.Errorf("asked %d times: %v", asked, err)
	}
	holds(t, filepath.Join(path, "journal.json"), "mine")
}

// TestAPathThatLeadsToADiskByNow gets no live secrets any more, and one that leads to memory again does.
func TestAPathThatLeadsToADiskByNow(t *testing.T) {
	memory, disk := filepath.Dir(inMemory(t)), filepath.Dir(onDisk(t))
	link := inMemory(t)
	lead := func(to string) {
		_ = os.Remove(link)
		if err := os.Symlink(to, link); err != nil {
			t.Fatal(err)
		}
	}
	encode := func(secrets bool) ([]byte, error) {
		if secrets {
			return []byte("with secrets"), nil
		}
		return []byte("without"), nil
	}
	lead(memory)
	s := locked(t, filepath.Join(link, "state"))
	j := s.Journal("")
	for _, c := range []struct{ to, want string }{
		{memory, "with secrets"},
		{disk, "without"},
		{memory, "with secrets"},
	} {
		lead(c.to)
		if err := j.Save(t.Context(), encode); err != nil {
			t.Fatal(err)
		}
		holds(t, filepath.Join(c.to, "state", "journal.json"), c.want)
		if s.KeepsSecrets() != (c.to == memory) {
			t.Errorf("%s: keeps secrets: %v", c.to, s.KeepsSecrets())
		}
	}
}
