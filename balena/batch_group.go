package balena

import (
	"context"
	"sync"
	"time"

	"github.com/balena-injector/injector/key"
	"github.com/balena-injector/injector/turn"
)

// leave removes the members that gone says are.
func (g *batch) leave(gone func(*member) bool) {
	kept := g.members[:0]
	for _, m := range g.members {
		if !gone(m) {
			kept = append(kept, m)
		}
	}
	g.members = kept
}

// urgency is that of the most urgent of g's keys. Three requests that extend up to 200, and one that finds the ids which that
// takes, go before those for keys whose apps are refused already: these take several each, and must not be so many that
// the keys of all others expire, too.
func (g *batch) urgency() turn.Urgency {
	u := turn.Keep
	for _, m := range g.members {
		u = max(u, turn.Of(m.ctx).Urgency())
	}
	switch {
	case g.work == revoking:
		return u
	case g.work == extending && u >= turn.Rescue:
		return turn.Save
	}
	return turn.Many
}

// ending reports whether g is of a process that ends: it waits for nobody.
func (g *batch) ending() bool {
	for _, m := range g.members {
		if e, ok := m.issuer.gate.Gate.(interface{ Ending() bool }); ok && e.Ending() {
			return true
		}
	}
	return false
}

// context returns the context of g's requests. It ends when nobody waits for them any more.
func (g *batch) context() (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(context.Background())
	waiting, mu, each := len(g.members), sync.Mutex{}, time.Duration(0)
	var undo []func() bool
	for _, m := range g.members {
		each = max(each, key.TryTimeout(m.ctx))
		undo = append(undo, context.AfterFunc(m.ctx, func() {
			mu.Lock()
			defer mu.Unlock()
			if waiting--; waiting == 0 {
				cancel()
			}
		}))
	}
	return key.WithTryTimeout(ctx, each), func() {
		for _, u := range undo {
			u()
		}
		cancel()
	}
}

// issuer is who sends g's requests: one for all keys.
func (b *batches) issuer(g *batch) *Issuer {
	return &Issuer{account: b.account, client: b.account.client, kind: key.User, gate: newLane(shared{g.ending()}, b.account)}
}

// owner is whose keys g is about, for the check that the credential is theirs.
func (g *batch) owner() key.Key { return key.Key{UserID: g.userID} }

func (g *batch) tellAll(o outcome) {
	for _, m := range g.members {
		out := o
		out.key = m.key
		m.tell(out)
	}
}
