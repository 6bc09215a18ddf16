package agent

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/balena-injector/injector/settle"
)

// load reads the journal and sorts its keys.
func (a *Agent) load(ctx context.Context) error {
	j, err := loadJournal(ctx, a.cfg.Store)
	if err != nil {
		if !errors.Is(err, errSetAside) {
			return err
		}
		a.log.Error("starting without a journal", "error", err)
	}
	if err := errors.Join(a.cfg.Store.Sweep(), a.cfg.Publisher.Sweep(ctx)); err != nil {
		a.log.Warn("what an earlier crash left could not be removed", "error", err)
	}
	a.journal = j
	a.cfg.Budget.resume(j.Budget, a.clock.now().wall)
	a.counters.unrevoked.Store(j.Unrevoked)
	a.userID = a.cfg.Issuer.KnownUser(ctx)
	for _, r := range j.Keys {
		h := a.hold(r)
		h.adopted, h.mint = true, settle.Made()
		a.ignores = a.ignores || r.Given
		if r.State == minting {
			h.mint = settle.Earlier()
		}
		switch {
		case r.URL != a.cfg.URL:
			a.strand(h, "it belongs to another API, "+r.URL)
		case !r.proven(a.cfg.Issuer.Mark):
			a.strand(h, "its record does not prove that it is ours: the credential is another one since, or somebody else wrote it")
		case a.userID == 0 && r.Login != a.cfg.Login:
			a.undecided = append(a.undecided, h)
		case a.userID != 0 && r.UserID != a.userID:
			a.strand(h, "it belongs to another account")
		default:
			a.sort(h)
		}
	}
	return nil
}

// strand keeps a key in the journal that this configuration cannot do anything about.
func (a *Agent) strand(h *holding, why string) {
	a.stranded = append(a.stranded, h)
	a.log.Warn("a key of the journal is left to expire: "+why, h.attrs()...)
}

// strandedFor is how long after its expiry a stranded key is forgotten. Nobody extends it but us, and we cannot.
const strandedFor = time.Hour

// forgetStranded forgets the stranded keys that have expired beyond doubt, by a server's clock.
func (a *Agent) forgetStranded() {
	now, reliable := a.cfg.Issuer.Now()
	if !reliable {
		return
	}
	for _, h := range slices.Clone(a.stranded) {
		if now.After(h.rec.latest().Add(strandedFor)) {
			a.log.Info("forgetting a key that this credential could not revoke: it has expired", h.attrs()...)
			a.drop(h)
			a.unsaved = true
		}
	}
}

// decide sorts the keys whose account was in doubt, now that ours is known.
func (a *Agent) decide(ctx context.Context) {
	for _, h := range a.undecided {
		if h.rec.UserID != a.userID {
			a.strand(h, "it belongs to another account")
			continue
		}
		h.rec.Login = a.cfg.Login
		a.sort(h)
	}
	a.undecided = nil
	a.adopt(ctx)
}

// sort finds a key's place: in use, on its way, or to be revoked.
func (a *Agent) sort(h *holding) {
	r := &h.rec
	mine := r.Kind == a.cfg.Kind && r.Target == a.cfg.Target
	usable := mine && !r.Secret.IsZero()
	switch {
	case a.draining && r.State != minting:
		a.retire(h, 0)
	case usable && !a.draining && r.State == published && a.current == nil:
		a.current = h
	case usable && !a.draining && (r.State == minting || r.State == minted) && a.successor == nil:
		a.successor = h
	case r.State == retiring && mine:
		h.retireAt = a.clock.now().add(min(r.RetireAt.Sub(a.clock.now().wall), a.cfg.Times.Overlap))
		a.retiring = append(a.retiring, h)
	case r.State == minting: // without its secret: only its name reports whether it came to be
		h.retireAt = a.clock.now()
		a.retiring = append(a.retiring, h)
	case mine && r.State == published: // without its secret, as a journal on a disk keeps it: the app may still read it
		h.waits, h.retireAt = true, a.clock.now() // and stays "published" on record, for the next start
		a.retiring = append(a.retiring, h)
	default:
		a.retire(h, 0)
	}
}

// adopt makes the best of what the journal says is ours.
func (a *Agent) adopt(ctx context.Context) {
	now := a.clock.now()
	a.shown = a.showsSuccessor(ctx)
	if a.current != nil {
		a.log.Info("adopting the key of the last start", a.current.attrs()...)
		a.untold = a.journal.Acknowledged < a.journal.Generation
		a.nextCheck = now.add(a.cfg.Times.Check)
		a.nextTend = a.nextCheck // its session is not needed before
		if a.listed() {
			a.wantsSight.Store(true)
			a.cfg.Crowd.List()
		}
		return
	}
	a.nextTend = now.add(a.cfg.Times.Check)
	if a.shown {
		return
	}
	if slices.ContainsFunc(a.retiring, func(h *holding) bool { return h.waits }) {
		return // the app's token works until the new one is there
	}
	if err := a.cfg.Publisher.Remove(ctx); err != nil {
		a.log.Error("an output of an earlier key could not be removed", "error", err)
	}
}

// attrs are what a log line says of a key.
func (h *holding) attrs() []any {
	attrs := []any{"name", h.rec.Name}
	if h.rec.ID != 0 {
		attrs = append(attrs, "id", h.rec.ID)
	}
	return append(attrs, "expires", h.rec.Expiry.UTC().Truncate(time.Second))
}
