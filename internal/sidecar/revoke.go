package sidecar

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/balena-injector/injector/agent"
	"github.com/balena-injector/injector/balena"
	"github.com/balena-injector/injector/internal/statedir"
	"github.com/balena-injector/injector/key"
)

// expiredFor is how long a key must have been expired before Revoke deletes it as such.
const expiredFor = 7 * 24 * time.Hour

// Revoke revokes all keys of the journals, and removes the outputs. If expired, it also deletes keys of these names that
// expired more than a week ago. It refuses to work beside another injector.
func (a *App) Revoke(stop, kill context.Context, expired bool) (err error) {
	if err := a.state.TryLock(); errors.Is(err, statedir.ErrLocked) {
		return fmt.Errorf("%w: it revokes its keys itself when it is stopped", err)
	} else if err != nil {
		return err
	}
	defer func() { a.sign(err); a.vacate() }()
	err = a.each(func(k *keeper) error { return k.named(k.agent().Revoke(stop, kill)) })
	others := a.endUnconfigured(func(left *agent.Agent) error { return left.Revoke(stop, kill) })
	if err = errors.Join(err, others); err != nil {
		if left, ok := errors.AsType[*agent.LeftError](err); ok && key.Is(left.Cause, key.Refused) {
			return left.Cause
		}
		return err
	}
	if !expired {
		return nil
	}
	for _, k := range a.keepers {
		n, e := deleteExpired(stop, k.issuer, k.settings.Prefix)
		k.log.Info("deleted expired keys", "count", n, "name", k.settings.Prefix+"-…")
		err = errors.Join(err, k.named(e))
	}
	return err
}

// deleteExpired deletes keys of ours that expired long ago, one by one.
func deleteExpired(ctx context.Context, issuer *balena.Issuer, prefix string) (deleted int, err error) {
	if _, _, err := issuer.Identify(ctx); err != nil {
		return 0, err
	}
	now, _ := issuer.Now()
	before := now.Add(-expiredFor)
	for last := int64(0); ; {
		found, next, err := issuer.ListExpired(ctx, prefix, before, last)
		if err != nil || next <= last {
			return deleted, err
		}
		for _, e := range found {
			if err := issuer.DeleteExpired(ctx, e, before); err != nil {
				return deleted, err
			}
			deleted++
		}
		last = next
	}
}
