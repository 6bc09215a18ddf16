package render

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"
)

// TestWatchWaitsForNoPipe has one in the place of a watched file, which nobody writes to.
func TestWatchWaitsForNoPipe(t *testing.T) {
	file := filepath.Join(t.TempDir(), "secret")
	if err := syscall.Mkfifo(file, 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- Watch(ctx, slog.New(slog.DiscardHandler), []string{file}, func() {}) }()
	cancel()
	select {
	case err := <-ended:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(5 * time.Second):
		t.Fatal("it does not end")
	}
}

// TestWatchSeesSwappedDirectories has a link among the directories that is swapped, and a directory that is removed
// and made again, twice.
func TestWatchSeesSwappedDirectories(t *testing.T) {
	root := t.TempDir()
	write := func(dir, text string) {
		t.Helper()
		if err := errors.Join(os.MkdirAll(filepath.Join(root, dir), 0o700), os.WriteFile(filepath.Join(root, dir, "file"), []byte(text), 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	write("one", "1")
	write("two", "2")
	write("made", "3")
	link := filepath.Join(root, "current")
	if err := os.Symlink("one", link); err != nil {
		t.Fatal(err)
	}
	changes := make(chan struct{}, 100)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	go func() {
		_ = Watch(ctx, slog.New(slog.DiscardHandler), []string{filepath.Join(link, "file"), filepath.Join(root, "made", "file")}, func() { changes <- struct{}{} })
	}()
	seen := func(what string, change func()) {
		t.Helper()
		for end := time.Now().Add(10 * time.Second); time.Now().Before(end); {
			change() // again, if the watcher was not there yet
			select {
			case <-changes:
				return
			case <-time.After(time.Second):
			}
		}
		t.Fatal("not seen: ", what)
	}
	to := "two"
	seen("the swapped link", func() {
		if err := errors.Join(os.Symlink(to, link+".new"), os.Rename(link+".new", link)); err != nil {
			t.Fatal(err)
		}
		to = map[string]string{"one": "two", "two": "one"}[to]
	})
	for range 2 {
		seen("the directory made again", func() {
			if err := os.RemoveAll(filepath.Join(root, "made")); err != nil {
				t.Fatal(err)
			}
			write("made", time.Now().String())
		})
	}
}

// TestNothingIsReplacedIfOneCannotBe has a directory in the place of the second output.
func TestNothingIsReplacedIfOneCannotBe(t *testing.T) {
	files, _, outputs := templated(t, Functions{}, "a {{.Token}}", "b {{.Token}}")
	if err := files.Publish(publication(1)); err != nil {
		t.Fatal(err)
	}
	before := readText(t, outputs[0])
	if err := errors.Join(os.Remove(outputs[1]), os.MkdirAll(filepath.Join(outputs[1], "full"), 0o700)); err != nil {
		t.Fatal(err)
	}
	if err := files.Publish(publication(2)); err == nil {
		t.Error("published into a directory")
	}
	if readText(t, outputs[0]) != before {
		t.Error("the first output was replaced, and the second could not be")
	}
}
