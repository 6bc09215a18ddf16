package render

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/balena-injector/injector/internal/tally"
	"github.com/balena-injector/injector/key"
)

func TestMain(m *testing.M) { os.Exit(tally.Run(m)) }

func publication(generation int) key.Publication {
	return key.Publication{Generation: generation, Key: key.Draft("test", key.User, 1, time.Unix(2e9, 0))}
}

func newDirs(t *testing.T, onDisk bool) *Dirs {
	t.Helper()
	d := NewDirs(onDisk)
	t.Cleanup(func() { _ = d.Close() })
	return d
}

func newFiles(t *testing.T, outputs ...Output) *Files {
	t.Helper()
	f := New(Config{Outputs: outputs, Dirs: newDirs(t, true)})
	return f
}

func TestPublishWritesExactBytes(t *testing.T) {
	defer syscall.Umask(syscall.Umask(0o077))
	path := filepath.Join(t.TempDir(), "token")
	f := newFiles(t, Output{Path: path, Mode: 0o444, Owner: Keep})
	p := publication(3)
	if err := errors.Join(f.Prove(t.Context()), f.Publish(t.Context(), p), f.Describe(t.Context(), p)); err != nil {
		t.Fatal(err)
	}
	raw, err := os.ReadFile(path)
	info, _ := os.Stat(path)
	if err != nil || string(raw) != p.Key.Secret.Reveal() || info.Mode() != 0o444 {
		t.Errorf("%d bytes, mode %v, %v", len(raw), info.Mode(), err)
	}
	var got Info
	raw, err = os.ReadFile(path + ".json")
	if err != nil || json.Unmarshal(raw, &got) != nil || got.Generation != 3 || got.Name != p.Key.Name || !got.Expiry.Equal(p.Key.Expiry) {
		t.Errorf("info %s, %v", raw, err)
	}
	if strings.Contains(string(raw), p.Key.Secret.Reveal()) {
		t.Error("the public file holds the secret")
	}
	if f.Inspect(t.Context(), p) != nil || f.Inspect(t.Context(), publication(3)) == nil {
		t.Error("Intact does not tell them apart")
	}
	before, _ := os.Stat(path)
	if err := f.Publish(t.Context(), p); err != nil {
		t.Fatal(err)
	}
	if after, _ := os.Stat(path); !os.SameFile(before, after) {
		t.Error("equal bytes were written again")
	}
	if err := f.Remove(t.Context()); err != nil {
		t.Fatal(err)
	}
	if entries, _ := os.ReadDir(filepath.Dir(path)); len(entries) != 0 {
		t.Errorf("left: %v", entries)
	}
	if err := f.Remove(t.Context()); err != nil {
		t.Errorf("removing nothing: %v", err)
	}
}

func TestAnAbsentSecretIsNeverPublished(t *testing.T) {
	path := filepath.Join(t.TempDir(), "token")
	f := newFiles(t, Output{Path: path, Mode: 0o440, Owner: Keep})
	if err := f.Publish(t.Context(), key.Publication{}); err == nil {
		t.Error("an empty file was written")
	}
	if _, err := os.Stat(path); err == nil {
		t.Error("there is a file")
	}
}

func TestOutputsMustBeInMemory(t *testing.T) {
	disk := New(Config{Outputs: []Output{{Path: filepath.Join(t.TempDir(), "token"), Mode: 0o440, Owner: Keep}}, Dirs: newDirs(t, false)})
	if err := disk.Prove(t.Context()); err == nil || !strings.Contains(err.Error(), "not in memory") {
		t.Errorf("got %v", err)
	}
	if err := disk.Publish(t.Context(), publication(1)); err == nil {
		t.Error("a key was written to a disk")
	}
	dir, err := os.MkdirTemp("/dev/shm", "injector-test-")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = os.RemoveAll(dir) }()
	memory := New(Config{Outputs: []Output{{Path: filepath.Join(dir, "token"), Mode: 0o440, Owner: Keep}}, Dirs: newDirs(t, false)})
	if err := memory.Prove(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestADirectoryThatWasReplaced(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "out")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	f := newFiles(t, Output{Path: filepath.Join(dir, "token"), Mode: 0o440, Owner: Keep})
	p := publication(1)
	if err := f.Publish(t.Context(), p); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(os.Rename(dir, dir+"-old"), os.Mkdir(dir, 0o700)); err != nil {
		t.Fatal(err)
	}
	if f.Inspect(t.Context(), p) == nil {
		t.Error("the app looks at an empty directory")
	}
	if err := f.Publish(t.Context(), p); err != nil || f.Inspect(t.Context(), p) != nil {
		t.Errorf("the new directory was not found: %v", err)
	}
	if err := errors.Join(os.RemoveAll(dir)); err != nil {
		t.Fatal(err)
	}
	if err := f.Publish(t.Context(), p); err == nil || !strings.Contains(err.Error(), "does not exist") {
		t.Errorf("got %v", err)
	}
}

// TestReadersSeeWholeValues lets four readers look while the file is replaced.
func TestReadersSeeWholeValues(t *testing.T) {
	const rotations = 10_000
	dir, err := os.MkdirTemp("/dev/shm", "injector-test-")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = os.RemoveAll(dir) }()
	path := filepath.Join(dir, "token")
	f := newFiles(t, Output{Path: path, Mode: 0o440, Owner: Keep})
	var known sync.Map
	publish := func(n int) {
		p := publication(n)
		known.Store(p.Key.Secret.Reveal(), n)
		if err := f.Publish(t.Context(), p); err != nil {
			t.Error(err)
		}
	}
	publish(0)
	var done atomic.Bool
	var readers sync.WaitGroup
	var reads atomic.Int64
	for range 4 {
		readers.Go(func() {
			last := 0
			for !done.Load() {
				raw, err := os.ReadFile(path)
				n, ok := known.Load(string(raw))
				if err != nil || !ok || n.(int) < last {
					tally.Add("bad reads", 1)
					t.Errorf("read %d bytes (%v), generation %v after %d", len(raw), err, n, last)
					return
				}
				last = n.(int)
				reads.Add(1)
			}
		})
	}
	before, heap := descriptors(t), heapInUse()
	for n := 1; n <= rotations; n++ {
		publish(n)
	}
	done.Store(true)
	readers.Wait()
	known.Clear() // the test's own memory
	if now := descriptors(t); now > before {
		t.Errorf("%d descriptors, %d before", now, before)
	}
	if now := heapInUse(); now > heap+1<<20 {
		t.Errorf("%d bytes in use, %d before", now, heap)
	}
	if reads.Load() < rotations/10 {
		t.Errorf("only %d reads", reads.Load())
	}
	tally.Add("rotations", rotations)
	tally.Add("reads by apps", int(reads.Load()))
}

// descriptors counts the files that this process has open, but for those of its readers.
func descriptors(t *testing.T) int {
	t.Helper()
	links, err := filepath.Glob("/proc/self/fd/*")
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, link := range links {
		if to, err := os.Readlink(link); err == nil && !strings.Contains(to, "/token") {
			n++
		}
	}
	return n
}

func heapInUse() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapInuse
}

func TestWatch(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "secret")
	changes := make(chan struct{}, 100)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	if err := os.WriteFile(file, []byte("one"), 0o600); err != nil {
		t.Fatal(err)
	}
	events := make(chan struct{}, 1)
	go func() { ended <- watch(ctx, []string{file}, events, func() {}, func() { changes <- struct{}{} }) }()
	nothing := func(what string) {
		t.Helper()
		select {
		case <-changes:
			t.Errorf("%s counts as a change", what)
		case <-time.After(3 * settling):
		}
	}
	nothing("the start")
	events <- struct{}{}
	nothing("an event without a change")
	for _, step := range []struct {
		name string
		do   func() error
	}{
		{"another content", func() error { return os.WriteFile(file, []byte("two"), 0o600) }},
		{"gone", func() error { return os.Remove(file) }},
		{"back", func() error { return os.WriteFile(file, []byte("three"), 0o600) }},
	} {
		if err := step.do(); err != nil {
			t.Fatal(err)
		}
		events <- struct{}{}
		select {
		case <-changes:
		case <-time.After(5 * time.Second):
			t.Errorf("%s was not noticed", step.name)
		}
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

func TestWatchSeesReplacedFiles(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "secret")
	if err := os.WriteFile(file, []byte("one"), 0o600); err != nil {
		t.Fatal(err)
	}
	changes := make(chan struct{}, 100)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		ended <- Watch(ctx, slog.New(slog.DiscardHandler), []string{file}, func() { changes <- struct{}{} })
	}()
	for deadline := time.Now().Add(10 * time.Second); len(changes) == 0 && time.Now().Before(deadline); time.Sleep(50 * time.Millisecond) {
		// Again and again, with other bytes: the watcher may not be there yet.
		temp := file + ".new"
		if err := errors.Join(os.WriteFile(temp, []byte(time.Now().String()), 0o600), os.Rename(temp, file)); err != nil {
			t.Fatal(err)
		}
		time.Sleep(3 * settling)
	}
	if len(changes) == 0 {
		t.Error("nothing was noticed")
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}
