package rootdir

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

func open(t *testing.T) (*Dir, string) {
	t.Helper()
	path := t.TempDir()
	d, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = d.Close() })
	return d, path
}

func TestReplaceTakesThePlaceOfWhateverIsThere(t *testing.T) {
	defer syscall.Umask(syscall.Umask(0o077))
	plants := map[string]func(path, victim string) error{
		"nothing":  func(string, string) error { return nil },
		"file":     func(path, _ string) error { return os.WriteFile(path, []byte("old"), 0o666) },
		"symlink":  func(path, victim string) error { return os.Symlink(victim, path) },
		"hardlink": func(path, victim string) error { return os.Link(victim, path) },
		"fifo":     func(path, _ string) error { return syscall.Mkfifo(path, 0o666) },
	}
	for name, plant := range plants {
		t.Run(name, func(t *testing.T) {
			d, dir := open(t)
			victim := filepath.Join(dir, "victim")
			if err := os.WriteFile(victim, []byte("untouched"), 0o600); err != nil {
				t.Fatal(err)
			}
			target := filepath.Join(dir, "token")
			if err := plant(target, victim); err != nil {
				t.Fatal(err)
			}
			if err := d.Replace("token", []byte("new"), 0o440, Keep); err != nil {
				t.Fatal(err)
			}
			if !d.Holds("token", []byte("new"), 0o440, Keep) {
				t.Error("the file is not what was written")
			}
			if got, _ := os.ReadFile(victim); string(got) != "untouched" {
				t.Errorf("the link was followed: %q", got)
			}
		})
	}
}

func TestReplaceFailsWithoutATrace(t *testing.T) {
	d, dir := open(t)
	if err := os.MkdirAll(filepath.Join(dir, "token", "full"), 0o700); err != nil {
		t.Fatal(err)
	}
	err := d.Replace("token", []byte("new"), 0o440, Keep)
	if err == nil || !strings.Contains(err.Error(), "directory of that name") {
		t.Errorf("got %v", err)
	}
	entries, _ := os.ReadDir(dir)
	if len(entries) != 1 {
		t.Errorf("left behind: %v", entries)
	}
}

func TestReadRefusesWhatIsNoFile(t *testing.T) {
	d, dir := open(t)
	if err := syscall.Mkfifo(filepath.Join(dir, "fifo"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("/etc/passwd", filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "long"), make([]byte, 11), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"fifo", "link", "long", "absent"} {
		if data, err := d.Read(name, 10); err == nil {
			t.Errorf("%s: read %q", name, data)
		}
	}
}

func TestHoldsLooksAtBytesModeAndOwner(t *testing.T) {
	d, _ := open(t)
	if err := d.Replace("f", []byte("abc"), 0o440, Keep); err != nil {
		t.Fatal(err)
	}
	me := Owner{os.Getuid(), os.Getgid()}
	if !d.Holds("f", []byte("abc"), 0o440, me) {
		t.Error("it holds what was written")
	}
	if d.Holds("f", []byte("abd"), 0o440, me) || d.Holds("f", []byte("ab"), 0o440, me) || d.Holds("f", []byte("abc"), 0o400, me) ||
		d.Holds("f", []byte("abc"), 0o440, Owner{me.UID + 1, -1}) || d.Holds("g", nil, 0o440, me) {
		t.Error("a difference was not seen")
	}
}

func TestSweepTakesOnlyOurOwnStrays(t *testing.T) {
	d, dir := open(t)
	for _, name := range []string{".token.ABC.part", ".other.ABC.part", "token", ".token", "token.part"} {
		if err := os.WriteFile(filepath.Join(dir, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := d.Sweep("token"); err != nil {
		t.Fatal(err)
	}
	entries, _ := os.ReadDir(dir)
	if len(entries) != 4 {
		t.Errorf("left: %v", entries)
	}
}

func TestMoved(t *testing.T) {
	d, dir := open(t)
	if d.Moved() {
		t.Error("it did not move")
	}
	if err := os.Rename(dir, dir+"-away"); err != nil {
		t.Fatal(err)
	}
	if !d.Moved() {
		t.Error("it is gone")
	}
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if !d.Moved() {
		t.Error("another one took its place")
	}
}

// TestErrorsSayWhere limits the open files, so that nothing can be opened: each error names the whole path.
func TestErrorsSayWhere(t *testing.T) {
	path := t.TempDir()
	d, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = d.Close() }()
	if err := os.WriteFile(filepath.Join(path, "file"), []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	var before syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &before); err != nil {
		t.Fatal(err)
	}
	none := before
	none.Cur = 3
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &none); err != nil {
		t.Fatal(err)
	}
	errs := map[string]error{}
	_, errs["Names"] = d.Names()
	_, errs["Read"] = d.Read("file", 10)
	_, errs["ReadOwn"] = d.ReadOwn("file", 10)
	_, errs["Child"] = d.Child("nothing")
	errs["Sweep"] = d.Sweep("file")
	errs["Replace"] = d.Replace("file", nil, 0o600, Keep)
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &before); err != nil {
		t.Fatal(err)
	}
	for name, err := range errs {
		if err == nil || !strings.Contains(err.Error(), path) || name != "Child" && !errors.Is(err, syscall.EMFILE) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
