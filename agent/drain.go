package agent

import "context"

// Drain revokes all keys of the journal and removes the outputs, as Revoke does, and takes as long for it as the server
// and the request budget want. When stop is done it ends as Run does: it tries once more, within the time for a stop,
// and returns *LeftError if a key is left that could have been revoked.
func (a *Agent) Drain(stop, kill context.Context) error {
	a.kill, a.diskWait, a.draining = kill, stop, true
	defer a.watch(stop)()
	if err := a.load(stop); err != nil {
		return err
	}
	a.began = a.clock.now().mono
	if err := beside(stop, func() error { return a.cfg.Publisher.Remove(stop) }); err != nil {
		a.log.Error("an output could not be removed", "error", err)
	}
	if len(a.all()) > 0 {
		_ = a.loop(stop, false)
	}
	if len(a.all()) > 0 {
		return a.end(stop)
	}
	return nil
}
