package statedir

import (
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
)

// always encodes a journal that is the same whether live secrets may be in it or not.
func always(text string) func(bool) ([]byte, error) {
	return func(bool) ([]byte, error) { return []byte(text), nil }
}

// inMemory is a path in memory where nothing is yet.
func inMemory(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "statedir-test-")
	if err != nil {
		t.Fatalf("these tests need a tmpfs at /dev/shm: %v", err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return filepath.Join(dir, "state")
}

// onDisk is a path on a disk where nothing is yet.
func onDisk(t *testing.T) string {
	t.Helper()
	if dir := t.TempDir(); !lost(t, dir) {
		return filepath.Join(dir, "state")
	}
	dir, err := os.MkdirTemp("/var/tmp", "statedir-test-")
	if err != nil {
		t.Skipf("there is no disk for temporary files: %v", err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	if lost(t, dir) {
		t.Skip("all temporary files are in memory here")
	}
	return filepath.Join(dir, "state")
}

// lost reports whether what lies there is lost when the machine stops.
func lost(t *testing.T, dir string) bool {
	t.Helper()
	var stat syscall.Statfs_t
	if err := syscall.Statfs(dir, &stat); err != nil {
		t.Fatal(err)
	}
	const tmpfs, ramfs = 0x01021994, 0x858458f6
	return uint32(stat.Type) == tmpfs || uint32(stat.Type) == ramfs
}

func opened(t *testing.T, path string) *Dir {
	t.Helper()
	s, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

// locked is an open directory that the test is in alone.
func locked(t *testing.T, path string) *Dir {
	t.Helper()
	s := opened(t, path)
	if err := s.TryLock(); err != nil {
		t.Fatal(err)
	}
	return s
}

// put writes a file that nobody else may read.
func put(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func holds(t *testing.T, path, text string) {
	t.Helper()
	raw, err := os.ReadFile(path)
	if err != nil || string(raw) != text {
		t.Errorf("%s holds %q, not %q: %v", path, raw, text, err)
	}
}

// tree is all that lies in a directory: names, modes, times and contents.
func tree(t *testing.T, path string) string {
	t.Helper()
	var all strings.Builder
	entries, err := os.ReadDir(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range append([]string{"."}, names(entries)...) {
		info, err := os.Lstat(filepath.Join(path, name))
		if err != nil {
			t.Fatal(err)
		}
		all.WriteString(info.Name() + " " + info.Mode().String() + " " + info.ModTime().String())
		if info.Mode().IsRegular() {
			raw, _ := os.ReadFile(filepath.Join(path, name))
			all.WriteString(" " + string(raw))
		}
		all.WriteString("\n")
	}
	return all.String()
}

func names(entries []os.DirEntry) []string {
	var list []string
	for _, e := range entries {
		list = append(list, e.Name())
	}
	return list
}

// replaced puts a directory of another journal in the place of the one at path, and returns where that is now.
func replaced(t *testing.T, path string) (old string) {
	t.Helper()
	old = path + "-old"
	if err := os.Rename(path, old); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(path, 0o700); err != nil {
		t.Fatal(err)
	}
	put(t, filepath.Join(path, "journal.json"), "of another volume")
	return old
}

// TestAllAtOnce saves journals and asks for the directory from many sides while it is removed again and again. What is
// saved in the end lies where the path leads.
func TestAllAtOnce(t *testing.T) {
	path := inMemory(t)
	s := locked(t, path)
	var journals []*Journal
	for _, slot := range []string{"a", "b", "c"} {
		journals = append(journals, s.Journal(slot))
	}
	var all sync.WaitGroup
	for _, j := range journals {
		all.Go(func() {
			for range 30 {
				_ = j.Save(t.Context(), always("early"))
				_ = j.Displaced()
				_, _ = j.Load(t.Context())
			}
		})
	}
	all.Go(func() {
		for range 10 {
			_ = os.RemoveAll(path)
			s.OnRenewal(func() {})
			s.Sign(Process{PID: 1})
			_, _ = s.Slots()
			_, _, _ = s.KeepsSecrets(), s.Unlockable(), s.Root()
		}
	})
	all.Wait()
	for _, j := range journals {
		if err := j.Save(t.Context(), always("last "+j.slot)); err != nil {
			t.Fatal(err)
		}
	}
	for _, j := range journals {
		if j.Displaced() {
			t.Errorf("%q is displaced", j.slot)
		}
		holds(t, filepath.Join(path, "journal-"+j.slot+".json"), "last "+j.slot)
	}
}
