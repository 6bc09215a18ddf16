package agent

import (
	"context"
	"time"

	"github.com/balena-injector/injector/key"
)

// identify finds out whose keys they are, before the journal's are touched.
func (a *Agent) identify(ctx context.Context) error {
	user, _, err := a.cfg.Issuer.Identify(ctx)
	if err != nil && user == 0 {
		return err
	}
	a.userID = user
	a.decide(ctx)
	return nil
}

// draft prepares a new key: all that can fail without one is tried first, and the journal names
// it before anything is sent.
func (a *Agent) draft(ctx context.Context) error {
	if err := a.prove(ctx); err != nil {
		return err
	}
	k, err := a.cfg.Issuer.Draft(ctx, a.firstTTL())
	if err != nil {
		return err
	}
	a.userID = k.UserID
	h := a.hold(record{
		Name:     k.Name,
		Secret:   k.Secret,
		Handle:   k.Handle,
		State:    minting,
		Expiry:   k.Expiry,
		Created:  a.serverNow(),
		URL:      a.cfg.URL,
		UserID:   k.UserID,
		Login:    a.cfg.Login,
		Kind:     a.cfg.Kind,
		Target:   a.cfg.Target,
		TargetID: k.TargetID,
	})
	h.rec.Given = a.ignores // the server will choose another
	a.successor = h
	row := a.journal.Mints
	a.noteMint()
	if err := a.save(); err != nil {
		a.successor, a.journal.Mints = nil, row
		return err
	}
	if a.pace.any && (a.current == nil || a.current.health.dead()) {
		a.pace.last = a.clock.now()
	}
	return nil
}

// firstTTL is how far ahead the expiry of a new key is set.
func (a *Agent) firstTTL() time.Duration {
	if a.brief {
		return min(a.cfg.Times.TTL, firstLife)
	}
	return a.cfg.Times.TTL
}

// settle sends the mint until its fate is known.
func (a *Agent) settle(ctx context.Context) error {
	h := a.successor
	if user := a.cfg.Issuer.KnownUser(ctx); user != 0 && user != h.rec.UserID {
		a.disown(h)
		return a.save()
	}
	if a.ignores && h.mint.Sent() {
		return a.settleByFind(ctx, h)
	}
	k := h.key()
	if a.left(h, a.clock.now()) < a.firstTTL()/2 {
		// An old draft. What was sent before may have landed with the old expiry, so both are in the
		// journal until the server says which one counts.
		if _, _, err := a.cfg.Issuer.Identify(ctx); err != nil {
			return err
		}
		k.Expiry = a.serverNow().Add(a.firstTTL()).Truncate(time.Millisecond)
		if err := a.expect(h, k.Expiry); err != nil {
			return err
		}
	}
	grace, cancel := a.graceful(ctx)
	defer cancel()
	made, err := h.mint.Send(grace, a.cfg.Issuer, k)
	if err != nil {
		return err
	}
	h.rec.Handle = made.Handle
	if !made.Secret.Equal(k.Secret) {
		a.ignores, h.rec.Given, h.rec.Secret = true, true, made.Secret
		a.log.Warn("the server ignores chosen secrets; a lost answer may cost a key until it expires", h.attrs()...)
	}
	return a.nowMinted(h, made.Expiry)
}

// disown puts a draft aside whose account is not the credential's any more.
func (a *Agent) disown(h *holding) {
	a.drop(h)
	if h.mint.Sent() {
		a.strand(h, "it belongs to another account")
	}
}

// nowMinted notes that a key exists, which expires then unless an earlier try made it.
func (a *Agent) nowMinted(h *holding, expiry time.Time) error {
	a.counters.mints.Add(1)
	if h.mint.Existed() {
		// Its expiry is that of one of the tries: the first, until it is read.
		a.setExpiry(h, h.rec.Expiry)
	} else {
		a.learnExpiry(h, expiry)
	}
	h.rec.State, h.rec.Minted = minted, a.serverNow()
	h.born = a.clock.now()
	msg := "minted a key"
	if h.mint.Existed() {
		msg = "minted a key: an earlier try had succeeded"
	}
	a.log.Info(msg, h.attrs()...)
	return a.save()
}

// settleByFind settles an unanswered mint whose secret nobody knows: the server ignores chosen secrets, or the journal
// was on disk. If the key turns up it is revoked.
func (a *Agent) settleByFind(ctx context.Context, h *holding) error {
	never, err := a.neverMade(ctx, h)
	switch {
	case key.Is(err, key.Unrevocable): // nobody will ever know; it dies at its expiry
		h.limits.cannotRevoke = true
		a.retire(h, 0)
	case err != nil:
		return err
	case never:
		a.drop(h)
	default:
		h.rec.State = minted
		a.retire(h, 0)
	}
	return a.save()
}

// neverMade looks for a key by name. It touches nothing but h.
func (a *Agent) neverMade(ctx context.Context, h *holding) (bool, error) {
	found, never, err := h.mint.Look(ctx, a.cfg.Issuer, h.key())
	if err == nil && !never {
		h.rec.ID, h.told.row = found.ID, found.Seen
	}
	return never, err
}

// graceful returns a context for a request that must not be cut off by a stop: it ends when half
// of the shutdown's time is gone, so that the rest is left for revoking.
func (a *Agent) graceful(stop context.Context) (context.Context, context.CancelFunc) {
	turn := farthest
	if a.turn > 0 {
		turn = a.turn
	}
	ctx, cancel := context.WithTimeout(a.withTurn(a.kill), turn)
	undo := context.AfterFunc(stop, func() {
		timer := time.AfterFunc(a.cfg.ShutdownTimeout/2, cancel)
		context.AfterFunc(ctx, func() { timer.Stop() })
	})
	return ctx, func() { undo(); cancel() }
}

// publishNew shows the new key to the app, and puts the old one into its overlap.
func (a *Agent) publishNew(ctx context.Context) error {
	h, old := a.successor, a.current
	if a.left(h, a.clock.now()) <= 0 {
		// It waited too long, or its expiry is a guess. What the server accepted a moment ago is
		// published all the same if nothing better is to be known.
		if revived, err := a.revive(ctx, h); revived || err != nil && retryable(err) {
			if revived {
				a.become(h, unproven, "it had expired and was extended")
			}
			return err
		}
		if err := a.cfg.Issuer.Accepts(ctx, h.key()); key.Is(err, key.Gone) {
			a.retire(h, 0)
			return a.save()
		} else if err != nil {
			return err
		}
	}
	p := a.publication(h)
	p.Generation++
	if err := a.cfg.Publisher.Publish(ctx, p); err != nil {
		return err
	}
	a.damage, a.inspected, a.shown = nil, a.clock.now(), false
	a.journal.Generation = p.Generation
	h.rec.State = published
	a.current, a.successor = h, nil
	if old != nil {
		overlap := a.cfg.Times.Overlap
		if old.health.dead() {
			overlap = 0
		}
		a.current = nil
		a.retire(old, overlap)
		a.current = h
		a.counters.rotations.Add(1)
	}
	now := a.clock.now()
	a.nextCheck = now.add(a.checkPause())
	a.nextTend = now
	args := append(h.attrs(), "generation", p.Generation, "next_extension_in", max(0, until(now, a.extendAt(h))).Round(time.Second))
	if old != nil && !old.health.dead() {
		args = append(args, "old_name", old.rec.Name, "old_key_lives_for", until(now, old.retireAt).Round(time.Second))
	}
	a.log.Info("published", args...)
	a.renewNow = false
	h.said.add(saidAnnounced)
	a.announce(p.Generation > 1)
	a.unlabeled = true
	return a.save()
}
