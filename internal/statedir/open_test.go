package statedir

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/balena-injector/injector/internal/rootdir"
)

// TestOpenMakesTheDirectoryForItsOwnerOnly where none is, whatever the umask lets through, and opens it again.
func TestOpenMakesTheDirectoryForItsOwnerOnly(t *testing.T) {
	defer syscall.Umask(syscall.Umask(0))
	path := inMemory(t)
	for range 2 {
		s := opened(t, path)
		if info, err := os.Stat(path); err != nil || info.Mode() != os.ModeDir|0o700 {
			t.Errorf("it has mode %v: %v", info.Mode(), err)
		}
		if s.Path() != path {
			t.Errorf("it is at %s", s.Path())
		}
	}
}

// TestOpenRefusesWhatOthersMayEnter or what is no directory, and leaves it as it is. The error names it.
func TestOpenRefusesWhatOthersMayEnter(t *testing.T) {
	dir := filepath.Dir(inMemory(t))
	mkdir := func(mode os.FileMode) func(path string) error {
		return func(path string) error { return errors.Join(os.Mkdir(path, 0o700), os.Chmod(path, mode)) }
	}
	for name, c := range map[string]struct {
		make func(path string) error
		says string // empty: it is opened
	}{
		"its own":               {mkdir(0o700), ""},
		"its own, read only":    {mkdir(0o500), ""},
		"an fsGroup's":          {mkdir(0o700 | os.ModeSetgid), ""},
		"the group may list it": {mkdir(0o740), "is open to others (mode 0740)"},
		"others may enter it":   {mkdir(0o701), "is open to others (mode 0701)"},
		"a temporary directory": {mkdir(0o777 | os.ModeSticky), "is open to others (mode 0777)"},
		"a link to one":         {func(path string) error { return os.Symlink(dir, path) }, "is not a directory"},
		"a link to nothing":     {func(path string) error { return os.Symlink("nothing", path) }, "is not a directory"},
		"a file":                {func(path string) error { return os.WriteFile(path, nil, 0o600) }, "is not a directory"},
		"a pipe":                {func(path string) error { return syscall.Mkfifo(path, 0o600) }, "is not a directory"},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(dir, strings.ReplaceAll(name, " ", "-"))
			if err := c.make(path); err != nil {
				t.Fatal(err)
			}
			before, _ := os.Lstat(path)
			s, err := Open(path)
			switch {
			case c.says == "" && err != nil:
				t.Error(err)
			case c.says == "":
				_ = s.Close()
			case err == nil || !strings.Contains(err.Error(), path+" "+c.says):
				t.Errorf("it is not refused: %v", err)
			}
			if after, err := os.Lstat(path); err != nil || after.Mode() != before.Mode() || !os.SameFile(before, after) {
				t.Errorf("it has been changed: %v", err)
			}
		})
	}
}

// anothers is a directory of another user.
func anothers(t *testing.T) string {
	t.Helper()
	if os.Getuid() != 0 {
		return "/" // root's
	}
	path := inMemory(t)
	if err := errors.Join(os.Mkdir(path, 0o700), os.Chown(path, 4321, -1)); err != nil {
		t.Fatal(err)
	}
	return path
}

// TestOpenRefusesAnotherUsersDirectory and says whose it is, and what to do.
func TestOpenRefusesAnotherUsersDirectory(t *testing.T) {
	path := anothers(t)
	s, err := Open(path)
	if err == nil {
		_ = s.Close()
		t.Fatal("it is opened")
	}
	for _, part := range []string{path + " belongs to user ", "run as that user", "INJECTOR_STATE_DIR"} {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("%q is not in: %v", part, err)
		}
	}
}

// TestOpenSaysWhatKeepsItFromMakingTheDirectory without the name twice.
func TestOpenSaysWhatKeepsItFromMakingTheDirectory(t *testing.T) {
	path := filepath.Join(inMemory(t), "deeper")
	_, err := Open(path)
	if !errors.Is(err, os.ErrNotExist) || strings.Count(err.Error(), path) != 1 {
		t.Errorf("got %v", err)
	}
}

// TestADirectoryThatIsPutInThePlaceOfAnother between the look at the path and the opening is refused: what counts is the
// directory that was opened.
func TestADirectoryThatIsPutInThePlaceOfAnother(t *testing.T) {
	path := inMemory(t)
	s := opened(t, path)
	link, err := os.Lstat(path)
	if err != nil {
		t.Fatal(err)
	}
	replaced(t, path)
	now, err := rootdir.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = now.Close() }()
	if _, err := check(now, link); err == nil || !strings.Contains(err.Error(), "was replaced while it was opened") {
		t.Errorf("the other one is taken: %v", err)
	}
	if _, err := check(s.current(), link); err != nil { // whatever is at the path by now
		t.Errorf("the one that was looked at is refused: %v", err)
	}
	if err := os.Chmod(path+"-old", 0o755); err != nil {
		t.Fatal(err)
	}
	if _, err := check(s.current(), link); err == nil {
		t.Error("the path is looked at, and not the directory")
	}
}

// TestOnlyMemoryKeepsSecrets as a disk keeps what is written to it, whether it is deleted or not.
func TestOnlyMemoryKeepsSecrets(t *testing.T) {
	if s := opened(t, inMemory(t)); !s.KeepsSecrets() {
		t.Error("a directory in memory keeps none")
	}
	if s := opened(t, onDisk(t)); s.KeepsSecrets() {
		t.Error("a directory on a disk keeps them")
	}
}

// TestReadTakesNothingThatOthersMayHaveWritten nor more than it was asked for.
func TestReadTakesNothingThatOthersMayHaveWritten(t *testing.T) {
	path := inMemory(t)
	s := opened(t, path)
	if err := s.Replace("notes.json", []byte("0123456789"), 0o600); err != nil {
		t.Fatal(err)
	}
	if data, err := s.Read("notes.json", 10); err != nil || string(data) != "0123456789" {
		t.Errorf("read %q: %v", data, err)
	}
	if _, err := s.Read("notes.json", 9); err == nil {
		t.Error("it reads a file that is too long")
	}
	if err := os.Chmod(filepath.Join(path, "notes.json"), 0o640); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Read("notes.json", 10); err == nil || !strings.Contains(err.Error(), "is open to others (mode 0640)") {
		t.Errorf("it reads a file that others may read: %v", err)
	}
	if _, err := s.Read("absent.json", 10); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("what is not there: %v", err)
	}
}

// TestSweepRemovesWhatWasHalfWritten of that file, and nothing else.
func TestSweepRemovesWhatWasHalfWritten(t *testing.T) {
	path := inMemory(t)
	s := opened(t, path)
	for _, name := range []string{
		".notes.json.ABC.part",
		".journal.json.ABC.part",
		".journal-a.json.ABC.part",
		"notes.json",
		"journal.json",
	} {
		put(t, filepath.Join(path, name), "x")
	}
	if err := errors.Join(s.Sweep("notes.json"), s.Journal("").Sweep()); err != nil {
		t.Fatal(err)
	}
	entries, _ := os.ReadDir(path)
	if got := strings.Join(names(entries), " "); got != ".journal-a.json.ABC.part journal.json notes.json" {
		t.Errorf("left: %s", got)
	}
}

// TestFileKeepsWhatOthersNote in the state directory, or in any other, and only for this user.
func TestFileKeepsWhatOthersNote(t *testing.T) {
	path := inMemory(t)
	s := opened(t, path)
	for name, f := range map[string]*File{
		"of-state.json": s.File("of-state.json"),
		"of-any.json":   NewFile(s.current(), "of-any.json"),
	} {
		at := filepath.Join(path, name)
		if data, err := f.Load(); data != nil || err != nil {
			t.Errorf("%s: it holds %q before it is saved: %v", name, data, err)
		}
		for _, text := range []string{"a longer note", "a note"} {
			if err := f.Save([]byte(text)); err != nil {
				t.Fatal(err)
			}
			if data, err := f.Load(); err != nil || string(data) != text {
				t.Errorf("%s: it holds %q, not %q: %v", name, data, text, err)
			}
		}
		if info, err := os.Lstat(at); err != nil || info.Mode() != 0o600 {
			t.Errorf("%s: mode %v, %v", name, info.Mode(), err)
		}
		if err := os.Chmod(at, 0o604); err != nil {
			t.Fatal(err)
		}
		if _, err := f.Load(); err == nil {
			t.Errorf("%s: it is read though others may read it", name)
		}
		if err := errors.Join(os.Remove(at), os.Symlink("/etc/hostname", at)); err != nil {
			t.Fatal(err)
		}
		if _, err := f.Load(); err == nil {
			t.Errorf("%s: a link is read", name)
		}
	}
}
