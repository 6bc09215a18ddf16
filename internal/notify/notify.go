// Package notify tells others that a key was published: a command, a process, an HTTP server. Each
// is told of the newest publication only, and a failure is tried again by itself: it touches neither
// the key nor the others.
package notify

import (
	"context"
	"log/slog"
	"sync/atomic"
	"time"
)

// Event is a publication, without its secret.
type Event struct {
	Key        string    `json:"key,omitempty"` // in INJECTOR_KEYS; empty: the only one
	Generation int       `json:"generation"`
	Name       string    `json:"name"`   // the key's, as the dashboard shows it
	Expiry     time.Time `json:"expiry"` // by the server's clock
}

// Target is somebody to be told.
type Target interface {
	Tell(ctx context.Context, e Event) error
	String() string // for the log
}

const (
	firstPause = time.Second
	maxPause   = time.Minute
)

// Notifier tells one target.
type Notifier struct {
	target  Target
	timeout time.Duration
	log     *slog.Logger
	newest  chan Event // holds one
	told    func(Event)
	failing atomic.Pointer[string]

	succeeded, failed atomic.Int64
}

// Tries says how many times the target was told, and how many times that failed.
func (n *Notifier) Tries() (succeeded, failed int64) { return n.succeeded.Load(), n.failed.Load() }

// Failing says whom the last try did not reach, and why; "" if all is well.
func (n *Notifier) Failing() string {
	if text := n.failing.Load(); text != nil {
		return *text
	}
	return ""
}

// New returns a notifier whose target gets that much time for each try. told is called after each
// success. Run it.
func New(target Target, timeout time.Duration, log *slog.Logger, told func(Event)) *Notifier {
	return &Notifier{target: target, timeout: timeout, log: log, newest: make(chan Event, 1), told: told}
}

// Tell hands an event over; an older one that waits is forgotten. It never blocks. Only one
// goroutine may call it.
func (n *Notifier) Tell(e Event) {
	select {
	case <-n.newest:
	default:
	}
	n.newest <- e
}

// Run tells the target until ctx is done.
func (n *Notifier) Run(ctx context.Context) {
	for {
		select {
		case e := <-n.newest:
			n.deliver(ctx, e)
		case <-ctx.Done():
			return
		}
	}
}

// deliver tries until it succeeds, or there is a newer event, which is put back.
func (n *Notifier) deliver(ctx context.Context, e Event) {
	pause := firstPause
	for try := 1; ; try++ {
		err := n.try(ctx, e)
		if err == nil {
			n.failing.Store(nil)
			n.succeeded.Add(1)
			n.told(e)
			n.log.Info("notified", "target", n.target.String(), "generation", e.Generation)
			return
		}
		if ctx.Err() != nil {
			return
		}
		n.failed.Add(1)
		text := n.target.String() + ": " + err.Error()
		n.failing.Store(&text)
		n.log.Warn("could not notify", "target", n.target.String(), "generation", e.Generation, "error", err, "next_try_in", pause)
		timer := time.NewTimer(pause)
		select {
		case <-timer.C:
		case newer := <-n.newest:
			timer.Stop()
			e, pause = newer, firstPause/2
		case <-ctx.Done():
			timer.Stop()
			return
		}
		pause = min(2*pause, maxPause)
	}
}

func (n *Notifier) try(ctx context.Context, e Event) error {
	ctx, cancel := context.WithTimeout(ctx, n.timeout)
	defer cancel()
	return n.target.Tell(ctx, e)
}
