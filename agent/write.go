package agent

import (
	"context"
	"errors"
	"sync"
)

// journalWriter writes journals one after the other, beside the goroutine that owns the agent's state: a disk can take
// seconds for each, and a stop must not wait for it.
type journalWriter struct {
	mu     sync.Mutex
	newest int // the number of the last one that was written
	last   int // of the last one that was handed over; the agent's goroutine's own
}

// Why a journal counts as not written.
var (
	errSlowDisk = errors.New("the state directory's disk is too slow: the journal was not written in time")
	errCutShort = errors.New("a second signal ended it before the journal was written")
)

// write writes a journal and waits for that, but not longer than a.diskWait: then it goes on by itself.
func (a *Agent) write(j journal) error {
	a.writer.last++
	n := a.writer.last
	done := make(chan error, 1)
	go func() {
		a.writer.mu.Lock()
		defer a.writer.mu.Unlock()
		if n < a.writer.newest {
			done <- nil // what came later has it all
			return
		}
		err := a.cfg.Store.Save(a.kill, func(secrets bool) ([]byte, error) { return j.encode(secrets, a.cfg.Issuer.Mark) })
		if err == nil {
			a.writer.newest = n
		}
		done <- err
	}()
	select {
	case err := <-done:
		return err
	case <-a.diskWait.Done():
	}
	select {
	case err := <-done:
		return err
	default:
		if a.kill.Err() != nil {
			return errCutShort
		}
		return errSlowDisk
	}
}

// beside does local work that may take long, and waits for it until ctx is done.
func beside(ctx context.Context, work func() error) error {
	done := make(chan error, 1)
	go func() { done <- work() }()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
