package agent

import (
	"context"
	"errors"
	"slices"
	"time"
)

// Run keeps a key until stop is done; then it revokes all its keys, or, if ErrHandOver is the
// cause, leaves them to the next start. It returns nil after a clean end and *LeftError if keys
// were left. When kill is done it returns at once, and the journal tells what was left.
func (a *Agent) Run(stop, kill context.Context) error {
	ended := make(chan error, 1)
	a.Start(stop, kill, func(err error) { ended <- err })
	return <-ended
}

// end is the orderly end that the stop asks for.
func (a *Agent) end(stop context.Context) error {
	cause := context.Cause(stop)
	if a.journal.Mints.Again = errors.Is(cause, ErrMayRestart); !a.journal.Mints.Again {
		a.endRow()
	}
	if a.cfg.KeepOnExit || errors.Is(cause, ErrHandOver) {
		return a.handOver()
	}
	return a.shutdown(cause.Error())
}

// Revoke revokes all keys of the journal and removes the outputs. When stop is done it ends.
func (a *Agent) Revoke(stop, _ context.Context) error {
	a.kill, a.diskWait = stop, stop
	a.noteStop()
	if err := a.load(stop); err != nil {
		return err
	}
	a.endRow() // a person asks for this
	a.strandOthers(stop)
	a.forgetStranded()
	a.retiring = append(a.retiring, a.undecided...)
	a.undecided = nil
	err := a.shutdown("all keys of the journal are to be revoked")
	return errors.Join(err, a.strandedError())
}

// strandOthers finds out, before keys are revoked, which of them are another account's, and what time it is, which says
// what has expired. What nobody can tell is tried.
func (a *Agent) strandOthers(ctx context.Context) {
	if len(a.undecided)+len(a.stranded) == 0 {
		return
	}
	user, _, _ := a.cfg.Issuer.Identify(ctx)
	for _, h := range slices.Clone(a.undecided) {
		if user != 0 && h.rec.UserID != user {
			a.drop(h)
			a.strand(h, "it belongs to another account")
		}
	}
}

// strandedError is about the keys that this configuration can do nothing about; nil if there are none.
func (a *Agent) strandedError() error {
	if len(a.stranded) == 0 {
		return nil
	}
	left := &LeftError{Cause: errors.New("this credential is for another account or API than the one that has them")}
	for _, h := range a.stranded {
		left.Keys = append(left.Keys, h.status())
	}
	return left
}

// watch notes when the stop comes: the budget of an orderly end counts from there.
func (a *Agent) watch(stop context.Context) (undo func() bool) {
	return context.AfterFunc(stop, a.noteStop)
}

func (a *Agent) noteStop() {
	a.stopped.Store(max(1, int64(a.clock.now().mono)))
	a.nudge()
}

// open makes the agent ready for its loop.
func (a *Agent) open(ctx context.Context) error {
	if err := a.prove(ctx); err != nil {
		return err
	}
	if err := a.load(ctx); err != nil {
		return err
	}
	a.began = a.clock.now().mono
	if len(a.undecided) == 0 {
		a.adopt(ctx)
	}
	return nil
}

// provenFor is how long it counts that the outputs could be written.
const provenFor = 5 * time.Second

// prove makes sure that the outputs can be written, unless that was found a moment ago.
func (a *Agent) prove(ctx context.Context) error {
	if !a.proven.IsZero() && time.Since(a.proven) < provenFor {
		return nil
	}
	err := a.cfg.Publisher.Prove(ctx)
	if err == nil {
		a.proven = time.Now()
	}
	return err
}
