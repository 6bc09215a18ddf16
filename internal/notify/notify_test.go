package notify

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// fake is a target that does what a test says, and keeps what it was told of, and when.
type fake struct {
	tell func(ctx context.Context, try int) error

	began time.Time
	mu    sync.Mutex
	told  []int           // generations
	at    []time.Duration // since it began
}

func (f *fake) String() string { return "somebody" }

func (f *fake) Tell(ctx context.Context, e Event) error {
	f.mu.Lock()
	f.told = append(f.told, e.Generation)
	f.at = append(f.at, time.Since(f.began))
	try := len(f.told)
	f.mu.Unlock()
	return f.tell(ctx, try)
}

// seen is what the target was told of until now, and when.
func (f *fake) seen() (told []int, at []time.Duration) {
	synctest.Wait()
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.told), slices.Clone(f.at)
}

// errDown is what a target says that is down.
var errDown = errors.New("it is down")

// bubble is a notifier at work in virtual time, with its target, and what it says of it.
type bubble struct {
	*Notifier
	*fake
	t    *testing.T
	log  bytes.Buffer
	well *fake // told of each success
	stop context.CancelFunc
}

// inBubble runs f with a notifier that has a minute for each try.
func inBubble(t *testing.T, tell func(ctx context.Context, try int) error, f func(t *testing.T, b *bubble)) {
	synctest.Test(t, func(t *testing.T) {
		b := &bubble{
			t:    t,
			fake: &fake{began: time.Now(), tell: tell},
			well: &fake{tell: func(context.Context, int) error { return nil }},
		}
		b.Notifier = New(b.fake, time.Minute, slog.New(slog.NewTextHandler(&b.log, nil)), func(e Event) { _ = b.well.Tell(t.Context(), e) })
		ctx, cancel := context.WithCancel(t.Context())
		b.stop = cancel
		done := make(chan struct{})
		go func() {
			defer close(done)
			b.Run(ctx)
		}()
		f(t, b)
		cancel()
		<-done // also in the middle of a try, or of a pause
	})
}

// Tell hands over the event of a generation, and waits for what comes of it at once.
func (b *bubble) Tell(generation int) {
	b.Notifier.Tell(Event{Generation: generation})
	synctest.Wait()
}

// want looks at what the target was told of, and which of that went well.
func (b *bubble) want(told, well []int) {
	b.t.Helper()
	gotTold, _ := b.seen()
	gotWell, _ := b.well.seen()
	if !slices.Equal(gotTold, told) || !slices.Equal(gotWell, well) {
		b.t.Errorf("told of %v, with success %v; want %v, %v", gotTold, gotWell, told, well)
	}
}

// TestEachEventIsToldOnce if that goes well.
func TestEachEventIsToldOnce(t *testing.T) {
	inBubble(t, func(context.Context, int) error { return nil }, func(t *testing.T, b *bubble) {
		b.Tell(1)
		time.Sleep(time.Hour)
		b.Tell(2)
		time.Sleep(time.Hour)
		b.want([]int{1, 2}, []int{1, 2})
		if got := b.Failing(); got != "" {
			t.Errorf("failing: %s", got)
		}
	})
}

// TestAnEventThatIsOlderIsForgotten while the target is told of another. Handing one over blocks nobody meanwhile.
func TestAnEventThatIsOlderIsForgotten(t *testing.T) {
	slow := func(context.Context, int) error {
		time.Sleep(30 * time.Second)
		return nil
	}
	inBubble(t, slow, func(t *testing.T, b *bubble) {
		for generation := range 5 {
			b.Tell(generation)
		}
		if took := time.Since(b.began); took != 0 {
			t.Errorf("it took %v to hand them over", took)
		}
		time.Sleep(time.Hour)
		b.want([]int{0, 4}, []int{0, 4})
	})
}

// TestAnEventBeforeTheWorkBegins is told when it does, and only the newest.
func TestAnEventBeforeTheWorkBegins(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		target := &fake{tell: func(context.Context, int) error { return nil }}
		n := New(target, time.Minute, slog.New(slog.DiscardHandler), func(Event) {})
		n.Tell(Event{Generation: 1})
		n.Tell(Event{Generation: 2})
		ctx, cancel := context.WithCancel(t.Context())
		go n.Run(ctx)
		if told, _ := target.seen(); !slices.Equal(told, []int{2}) {
			t.Errorf("told of %v", told)
		}
		cancel()
	})
}

// TestAFailureIsTriedAgain after a second, then ever later up to a minute, until it goes well. Meanwhile it can be asked
// whom that concerns and why, and afterwards all is well.
func TestAFailureIsTriedAgain(t *testing.T) {
	const tries = 10
	downAtFirst := func(_ context.Context, try int) error {
		if try < tries {
			return errDown
		}
		return nil
	}
	inBubble(t, downAtFirst, func(t *testing.T, b *bubble) {
		if got := b.Failing(); got != "" {
			t.Errorf("before: %s", got)
		}
		b.Tell(7)
		for range 4 * 60 {
			if got := b.Failing(); got != "somebody: it is down" {
				t.Errorf("failing: %q", got)
			}
			time.Sleep(time.Second)
		}
		b.want(slices.Repeat([]int{7}, tries-1), nil)
		time.Sleep(time.Hour)
		b.want(slices.Repeat([]int{7}, tries), []int{7})
		if got := b.Failing(); got != "" {
			t.Errorf("afterwards: %s", got)
		}
		if succeeded, failed := b.Tries(); succeeded != 1 || failed != tries-1 {
			t.Errorf("%d successes and %d failures are counted", succeeded, failed)
		}
		_, all := b.seen()
		var pauses []time.Duration
		for i, at := range all[1:] {
			pauses = append(pauses, (at-all[i])/time.Second)
		}
		if want := []time.Duration{1, 2, 4, 8, 16, 32, 60, 60, 60}; !slices.Equal(pauses, want) {
			t.Errorf("pauses of %d seconds, want %d", pauses, want)
		}
		if log := b.log.String(); strings.Count(log, "could not notify") != tries-1 || strings.Count(log, "msg=notified") != 1 {
			t.Errorf("log:\n%s", log)
		}
	})
}

// TestANewerEventDoesNotWait for the next try of an older one, which is forgotten; and its own tries begin with a short
// pause.
func TestANewerEventDoesNotWait(t *testing.T) {
	downAtFirst := func(_ context.Context, try int) error {
		if try <= 8 {
			return errDown
		}
		return nil
	}
	inBubble(t, downAtFirst, func(t *testing.T, b *bubble) {
		b.Tell(1)
		time.Sleep(63*time.Second + 500*time.Millisecond) // tries after 0, 1, 3, 7, 15, 31 and 63 seconds
		b.Tell(2)
		time.Sleep(time.Hour)
		b.want([]int{1, 1, 1, 1, 1, 1, 1, 2, 2}, []int{2})
		_, at := b.seen()
		if newer := at[len(at)-2:]; newer[0] != 63*time.Second+500*time.Millisecond || newer[1]-newer[0] != time.Second {
			t.Errorf("tries at %v", at)
		}
	})
}

// TestATryHasItsTime and no more: one that hangs is a failure, and is tried again.
func TestATryHasItsTime(t *testing.T) {
	hangs := func(ctx context.Context, _ int) error {
		<-ctx.Done()
		return ctx.Err()
	}
	inBubble(t, hangs, func(t *testing.T, b *bubble) {
		b.Tell(1)
		time.Sleep(time.Minute - 1)
		if got := b.Failing(); got != "" {
			t.Errorf("failing before its time: %s", got)
		}
		time.Sleep(time.Minute)
		b.want([]int{1, 1}, nil)
		if got := b.Failing(); got != "somebody: context deadline exceeded" {
			t.Errorf("failing: %q", got)
		}
		if _, at := b.seen(); !slices.Equal(at, []time.Duration{0, time.Minute + time.Second}) {
			t.Errorf("tries at %v", at)
		}
	})
}

// TestAStopIsNoFailure in the middle of a try: what is said is of the one before. It ends a pause as well.
func TestAStopIsNoFailure(t *testing.T) {
	hangs := func(ctx context.Context, try int) error {
		if try == 1 {
			return errDown
		}
		<-ctx.Done()
		return ctx.Err()
	}
	for name, c := range map[string]struct {
		after time.Duration
		tries int
	}{
		"in a pause": {time.Second / 2, 1},
		"in a try":   {3 * time.Second / 2, 2},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, hangs, func(t *testing.T, b *bubble) {
				b.Tell(1)
				time.Sleep(c.after)
				b.stop()
				synctest.Wait()
				b.Tell(2) // it blocks nobody, and is told to nobody
				time.Sleep(time.Hour)
				told, _ := b.seen()
				if got := b.Failing(); got != "somebody: it is down" || len(told) != c.tries {
					t.Errorf("failing: %q after %d tries", got, len(told))
				}
			})
		})
	}
}
