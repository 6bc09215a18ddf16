package render

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"testing"
	"testing/synctest"
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
		if err := errors.Join(os.MkdirAll(filepath.Join(root, dir), 0o700), os.WriteFile(filepath.Join(root, dir, "file"), []byte(text),
			0o600)); err != nil {
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
		_ = Watch(ctx, slog.New(slog.DiscardHandler), []string{filepath.Join(link, "file"), filepath.Join(root, "made", "file")},
			func() { changes <- struct{}{} })
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
	if err := files.Publish(t.Context(), publication(1)); err != nil {
		t.Fatal(err)
	}
	before := readText(t, outputs[0])
	if err := errors.Join(os.Remove(outputs[1]), os.MkdirAll(filepath.Join(outputs[1], "full"), 0o700)); err != nil {
		t.Fatal(err)
	}
	if err := files.Publish(t.Context(), publication(2)); err == nil {
		t.Error("published into a directory")
	}
	if readText(t, outputs[0]) != before {
		t.Error("the first output was replaced, and the second could not be")
	}
}

// TestWatchInABusyDirectory has a log in the directory of a watched file, which is never quiet.
func TestWatchInABusyDirectory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		file := filepath.Join(t.TempDir(), "secret")
		writeText(t, file, "one")
		events, changes := make(chan struct{}, 1), make(chan time.Time, 10)
		ctx, cancel := context.WithCancel(t.Context())
		renewals := 0
		go func() {
			_ = watch(ctx, []string{file}, events, func() { renewals++ }, func() { changes <- time.Now() })
		}()
		began := time.Now()
		for n := range 100 { // ten seconds
			if n == 20 {
				writeText(t, file, "two")
			}
			select {
			case events <- struct{}{}:
			default:
			}
			time.Sleep(100 * time.Millisecond)
			synctest.Wait()
		}
		cancel()
		synctest.Wait()
		select {
		case at := <-changes:
			if late := at.Sub(began) - 2*time.Second; late > busy {
				t.Errorf("seen %v after the change", late)
			}
		default:
			t.Error("the change was not seen")
		}
		if renewals > 13 {
			t.Errorf("looked %d times in ten seconds", renewals)
		}
	})
}

// TestStepsToAFile has links to files and directories, one after the other, and what is not there.
func TestStepsToAFile(t *testing.T) {
	root, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	at := func(elem ...string) string { return filepath.Join(append([]string{root}, elem...)...) }
	for _, err := range []error{
		os.MkdirAll(at("config"), 0o700), os.MkdirAll(at("elsewhere", "deep"), 0o700), os.MkdirAll(at("volume", "..2026"), 0o700),
		os.WriteFile(at("elsewhere", "deep", "template"), nil, 0o600), os.WriteFile(at("volume", "..2026", "password"), nil, 0o600),
		os.Symlink("../elsewhere/link", at("config", "template")), os.Symlink(at("elsewhere", "deep", "template"), at("elsewhere", "link")),
		os.Symlink("..2026", at("volume", "..data")), os.Symlink("..data/password", at("volume", "password")),
		os.Symlink("loop", at("loop")),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	for path, want := range map[string][]string{
		at("config", "template"):           {at("config"), at("elsewhere"), at("elsewhere", "deep")},
		at("volume", "password"):           {at("volume"), at("volume"), at("volume", "..2026")},
		at("not", "there", "yet"):          {root},
		at("elsewhere", "deep", "another"): {at("elsewhere", "deep")},
	} {
		if got := steps(path); !slices.Equal(got, want) {
			t.Errorf("%s: %v, not %v", path, got, want)
		}
	}
	if got := steps(at("loop")); len(got) > mostLinks+1 {
		t.Errorf("a loop of links has %d steps", len(got))
	}
}

// TestWatchFollowsLinksToTheirEnd has a template that is a link to a file elsewhere, which is rewritten, and then a link
// to another.
func TestWatchFollowsLinksToTheirEnd(t *testing.T) {
	root := t.TempDir()
	link := filepath.Join(root, "config", "template")
	for _, dir := range []string{"config", "one", "two"} {
		if err := os.Mkdir(filepath.Join(root, dir), 0o700); err != nil {
			t.Fatal(err)
		}
		writeText(t, filepath.Join(root, dir, "file"), dir)
	}
	if err := os.Symlink("../one/file", link); err != nil {
		t.Fatal(err)
	}
	changes := make(chan struct{}, 100)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = Watch(ctx, slog.New(slog.DiscardHandler), []string{link}, func() { changes <- struct{}{} })
	}()
	defer func() { cancel(); <-ended }()
	for _, c := range []struct {
		what   string
		change func()
	}{
		{"a file at the end", func() { writeText(t, filepath.Join(root, "one", "file"), time.Now().String()) }},
		{"another link", func() {
			temp := link + ".new"
			if err := errors.Join(os.Symlink("../two/file", temp), os.Rename(temp, link)); err != nil {
				t.Fatal(err)
			}
			writeText(t, filepath.Join(root, "two", "file"), time.Now().String())
		}},
	} {
		seen := false
		for end := time.Now().Add(10 * time.Second); !seen && time.Now().Before(end); {
			c.change() // again, if the watcher was not there yet
			select {
			case <-changes:
				seen = true
			case <-time.After(2 * busy):
			}
		}
		if !seen {
			t.Errorf("%s was not seen", c.what)
		}
	}
}

// TestNothingOfProcIsIncluded swaps the directory that templates may include from for a link to /proc/self.
func TestNothingOfProcIsIncluded(t *testing.T) {
	root := t.TempDir()
	path := filepath.Join(root, "files")
	if err := os.Mkdir(path, 0o700); err != nil {
		t.Fatal(err)
	}
	writeText(t, filepath.Join(path, "environ"), "the app's own")
	dir := openDir(t, path)
	files, _, outputs := templated(t, Functions{Files: dir}, `{{file "environ"}}`)
	if err := errors.Join(os.Rename(path, path+".old"), os.Symlink("/proc/self", path)); err != nil {
		t.Fatal(err)
	}
	if err := files.Publish(t.Context(), publication(1)); err != nil || readText(t, outputs[0]) != "the app's own" {
		t.Errorf("%q, %v", readText(t, outputs[0]), err)
	}
	// Nor by any other way: a directory of /proc itself, and a template that is one of its files.
	files, _, _ = templated(t, Functions{Files: openDir(t, "/proc/self")}, `{{file "environ"}}`)
	if err := files.Publish(t.Context(), publication(2)); err == nil {
		t.Error("the environment was rendered")
	}
	if _, err := NewTemplate("/proc/self/environ", Functions{}).Load(); err == nil {
		t.Error("the environment is a template")
	}
}

// TestAPresetsDirectoryIsNotFollowed has an app that puts something else in the place of a preset's directory.
func TestAPresetsDirectoryIsNotFollowed(t *testing.T) {
	for name, plant := range map[string]func(dir, victim string) error{
		"a link, before":     func(dir, victim string) error { return os.Symlink(victim, dir) },
		"a pipe, before":     func(dir, _ string) error { return syscall.Mkfifo(dir, 0o600) },
		"a link, afterwards": nil,
	} {
		t.Run(name, func(t *testing.T) {
			secrets, victim := t.TempDir(), t.TempDir()
			token := filepath.Join(victim, "token")
			writeText(t, token, "somebody else's")
			dirs := NewDirs(true)
			defer func() { _ = dirs.Close() }()
			dir := filepath.Join(secrets, "balena")
			files := New(
				Config{Dirs: dirs, Outputs: []Output{{Path: filepath.Join(dir, "token"), Mode: 0o440, Owner: Keep, MakeDir: true}}})
			if plant != nil {
				if err := plant(dir, victim); err != nil {
					t.Fatal(err)
				}
			} else if err := files.Publish(t.Context(), publication(1)); err != nil {
				t.Fatal(err)
			} else if err := errors.Join(os.Rename(dir, dir+".old"), os.Symlink(victim, dir)); err != nil {
				t.Fatal(err)
			}
			if err := files.Publish(t.Context(), publication(2)); err == nil {
				t.Error("something was published there")
			}
			_ = files.Remove(t.Context())
			if got := readText(t, token); got != "somebody else's" {
				t.Errorf("%q", got)
			}
		})
	}
}
