package probe

import (
	"context"
	"errors"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestNoAgentWhereNobodyListens in a directory that is not there, in one without a socket, and where a dead agent's lies.
func TestNoAgentWhereNobodyListens(t *testing.T) {
	empty, dead := t.TempDir(), t.TempDir()
	if err := leaveDead(dead); err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{filepath.Join(empty, "absent"), empty, dead} {
		_, _, asked := Ask(t.Context(), dir, "/livez", 0)
		_, told := Tell(t.Context(), dir, "handover")
		_, reported := AskReport(t.Context(), dir, nil)
		for _, err := range []error{asked, told, reported} {
			if !errors.Is(err, ErrNoAgent) || errors.Is(err, ErrSilent) || !strings.Contains(err.Error(), dir) {
				t.Errorf("%s: %v", dir, err)
			}
		}
	}
}

// TestSilentIsOneThatDoesNotAnswer as it is stopped, ends meanwhile, or says half of it. It may still do what it was
// asked for.
func TestSilentIsOneThatDoesNotAnswer(t *testing.T) {
	frozen, ends, halves := t.TempDir(), t.TempDir(), t.TempDir()
	listenAt(t, frozen) // and nobody looks who comes
	fake(t, ends, func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) })
	fake(t, halves, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", "100")
		_, _ = w.Write([]byte("al"))
	})
	for dir, says := range map[string]string{
		frozen: "within",
		ends:   "it ended, or was killed, while it was asked",
		halves: "it ended, or was killed, while it was asked",
	} {
		limit := time.Minute
		if dir == frozen {
			limit = 50 * time.Millisecond
		}
		for name, ask := range map[string]func(context.Context) error{
			"asked":              func(ctx context.Context) error { _, _, err := Ask(ctx, dir, "/livez", 0); return err },
			"asked for a report": func(ctx context.Context) error { _, err := AskReport(ctx, dir, nil); return err },
			"told":               func(ctx context.Context) error { _, err := Tell(ctx, dir, "handover"); return err },
		} {
			ctx, cancel := context.WithTimeout(t.Context(), limit)
			err := ask(ctx)
			cancel()
			if !errors.Is(err, ErrSilent) || errors.Is(err, ErrNoAgent) || !strings.Contains(err.Error(), says) {
				t.Errorf("%s, it is: %v", name, err)
			}
			if warned := strings.Contains(err.Error(), "it may still do what it was asked for"); warned != (name == "told") {
				t.Errorf("%s, it may still do so: %v", name, err)
			}
		}
	}
}

// TestAnAgentHasThreeSecondsToAnswer and as much longer as its answer may be held.
func TestAnAgentHasThreeSecondsToAnswer(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	arrived, release := make(chan struct{}, 2), make(chan struct{})
	fake(t, dir, func(w http.ResponseWriter, r *http.Request) {
		arrived <- struct{}{}
		select {
		case <-release:
		case <-r.Context().Done():
		}
	})
	held := make(chan error, 1)
	go func() {
		_, _, err := Ask(t.Context(), dir, "/readyz", time.Minute)
		held <- err
	}()
	select {
	case <-arrived:
	case err := <-held:
		t.Fatal(err)
	}
	began := time.Now()
	_, _, err := Ask(t.Context(), dir, "/livez", 0)
	if took := time.Since(began); took < 3*time.Second {
		t.Errorf("it had only %v to answer", took)
	}
	if !errors.Is(err, ErrSilent) || !strings.Contains(err.Error(), "within 3s") {
		t.Errorf("it does not answer: %v", err)
	}
	select {
	case err := <-held:
		t.Fatalf("an answer that may be held is not waited for: %v", err)
	case <-time.After(200 * time.Millisecond):
	}
	close(release)
	if err := <-held; err != nil {
		t.Errorf("a held answer: %v", err)
	}
}

// TestAnOlderVersionDoesNotKnowWhatItIsAskedFor and there is another way.
func TestAnOlderVersionDoesNotKnowWhatItIsAskedFor(t *testing.T) {
	dir := t.TempDir()
	fake(t, dir, http.NotFound)
	text, err := Tell(t.Context(), dir, "handover")
	if err == nil || text != "" || !strings.Contains(err.Error(), "send it SIGQUIT instead") {
		t.Errorf("it answers %q: %v", text, err)
	}
	_, err = AskReport(t.Context(), dir, nil)
	if err == nil || !strings.Contains(err.Error(), "the agent answered 404: 404 page not found") {
		t.Errorf("asked for a report: %v", err)
	}
}

// TestAReportThatIsNone is an error.
func TestAReportThatIsNone(t *testing.T) {
	dir := t.TempDir()
	fake(t, dir, func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("ready")) })
	if r, err := AskReport(t.Context(), dir, nil); err == nil {
		t.Errorf("it is %+v", r)
	}
}

// TestWhoMayNotAskIsToldWhoMay as a state directory is for its user alone.
func TestWhoMayNotAskIsToldWhoMay(t *testing.T) {
	denied := &fs.PathError{Op: "dial", Path: SocketName, Err: fs.ErrPermission}
	anothers := "/" // root's
	if os.Getuid() == 0 {
		anothers = t.TempDir()
		if err := os.Chown(anothers, 4321, -1); err != nil {
			t.Fatal(err)
		}
	}
	err := explain(denied, anothers)
	if !strings.Contains(err.Error(), "belongs to user ") || !strings.Contains(err.Error(), "run this command as uid ") {
		t.Errorf("in another user's directory: %v", err)
	}
	if err := explain(denied, t.TempDir()); !strings.Contains(err.Error(), "may not ask the agent in ") {
		t.Errorf("in its own directory: %v", err)
	}
}

// TestWhatCannotBeAskedIsNoAgentsFault such as a path that is none.
func TestWhatCannotBeAskedIsNoAgentsFault(t *testing.T) {
	if _, _, err := Ask(t.Context(), t.TempDir(), "/\x7f", 0); err == nil || errors.Is(err, ErrNoAgent) || errors.Is(err, ErrSilent) {
		t.Errorf("got %v", err)
	}
}
