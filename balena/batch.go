package balena

import (
	"context"
	"sync"
	"time"

	"github.com/balena-injector/injector/key"
	"github.com/balena-injector/injector/turn"
)

const (
	// gather is how long a batch waits for others that want the same.
	gather = 100 * time.Millisecond
	// batchTime is how long one may wait for its turn, since those who want it do nothing else meanwhile; and how long it may
	// take then.
	batchTime = time.Minute
	// atOnce is how many batches of the same urgency are under way at once, or wait for their turn.
	atOnce = 4
	// sameExpiry is how far apart the expiries may be that one request moves to the earliest of them.
	sameExpiry = 500 * time.Millisecond
	// singlyFor is how long each key is looked after by itself once batches were refused.
	singlyFor = time.Hour
)

// batches lets what several keys of an account want at the same time travel in one request. The ids of such a request are
// in its query, and a query can get lost on the way: then it would be about every key of the account. So each batch
// first looks at just the rows that it is about, and a row that it did not ask for ends all batches; each row that it
// changes must have our prefix; and what came of it is read back, for each key. What is not as expected there goes its own
// way, one by one, where the path names the row.
type batches struct {
	account *Account
	running [turn.Save + 1]chan struct{} // each holds an element for each batch of that urgency that is under way
	mu      sync.Mutex
	filling []*batch
	singly  time.Time // until when there are none
	strikes int       // how often one failed in a server that is healthy
}

func newBatches(a *Account) *batches {
	b := &batches{account: a}
	for u := range b.running {
		b.running[u] = make(chan struct{}, atOnce)
	}
	return b
}

// work is what a batch does.
type work int

const (
	finding work = iota
	extending
	revoking
)

// most is how many keys a batch of that work has at most.
func (w work) most() int {
	if w == finding {
		return mostNames
	}
	return mostIDs
}

// requests is how many a batch of that work sends: a look, and for changes the write and another look.
func (w work) requests() int {
	if w == finding {
		return 1
	}
	return 3
}

// batch is what several keys want.
type batch struct {
	work    work
	prefix  string
	userID  int64
	expiry  time.Time // the earliest that was asked for
	latest  time.Time
	members []*member
	written bool // a change was sent
	timer   *time.Timer
}

// member is one key of a batch.
type member struct {
	ctx    context.Context
	issuer *Issuer
	key    key.Key
	expiry time.Time
	done   chan outcome
}

// outcome is what came of a batch for one key.
type outcome struct {
	key   key.Key
	err   error
	apart bool // the key goes its own way
	sent  bool // and what was sent for all may have changed it
}

func (m *member) tell(o outcome) { m.done <- o }

// together does work for k together with others that want the same. done reports whether it did; otherwise the key is to
// be looked after by itself.
func (i *Issuer) together(ctx context.Context, w work, k key.Key, expiry time.Time) (got key.Key, done bool, err error) {
	b, ticket := i.account.batches, turn.Of(ctx)
	if b == nil || ticket.Alone() {
		return k, false, nil
	}
	o := outcome{apart: true}
	if b.takes(w, k) {
		m := &member{ctx: ctx, issuer: i, key: k, expiry: expiry, done: make(chan outcome, 1)}
		b.join(w, m)
		select {
		case o = <-m.done:
		case <-ctx.Done():
			return k, true, &Error{Class: key.Outage, Op: ops[w], Err: withoutURL(ctx.Err())}
		}
	}
	switch {
	case o.apart && (ticket == nil || !o.sent && ticket.Probe()):
		return k, false, nil // nobody counts; or it asks for all whether an outage is over
	case o.apart && o.sent:
		return k, true, &Error{Class: key.Ambiguous, Op: ops[w], Err: turn.ErrAlone}
	case o.apart:
		return k, true, &Error{Class: key.Busy, Op: ops[w], Err: turn.ErrAlone}
	}
	return o.key, true, o.err
}

// ops are for people.
var ops = map[work]string{finding: "find the key", extending: "extend the key", revoking: "revoke the key"}

// takes reports whether k can be part of a batch: its row can be told by id and name, or will be, and the server lists
// keys of its kind.
func (b *batches) takes(w work, k key.Key) bool {
	if k.Given || k.Kind != key.User && !k.Seen || w != finding && k.ID <= 0 || key.CheckPrefix(key.Prefix(k.Name)) != nil {
		return false
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	return time.Now().After(b.singly)
}

// join makes m part of the batch that is being filled, or of a new one.
func (b *batches) join(w work, m *member) {
	b.mu.Lock()
	defer b.mu.Unlock()
	g := b.fitting(w, m)
	if g == nil {
		g = &batch{work: w, prefix: key.Prefix(m.key.Name), userID: m.key.UserID, expiry: m.expiry, latest: m.expiry}
		b.filling = append(b.filling, g)
		g.timer = time.AfterFunc(gather, func() { b.start(g) })
	}
	g.members = append(g.members, m)
	if m.expiry.Before(g.expiry) {
		g.expiry = m.expiry
	}
	if m.expiry.After(g.latest) {
		g.latest = m.expiry
	}
	if len(g.members) == w.most() && g.timer.Stop() {
		go b.start(g)
		b.close(g)
	}
}

// fitting returns the batch that is being filled with the like of m; nil: there is none. The caller holds mu.
func (b *batches) fitting(w work, m *member) *batch {
	for _, g := range b.filling {
		if g.work == w && len(g.members) < w.most() && g.prefix == key.Prefix(m.key.Name) && g.userID == m.key.UserID &&
			g.latest.Sub(m.expiry) <= sameExpiry && m.expiry.Sub(g.expiry) <= sameExpiry {
			return g
		}
	}
	return nil
}

// close ends the filling of g. The caller holds mu.
func (b *batches) close(g *batch) {
	for n, other := range b.filling {
		if other == g {
			b.filling = append(b.filling[:n], b.filling[n+1:]...)
			return
		}
	}
}

// start does the work of g when it is its turn.
func (b *batches) start(g *batch) {
	b.mu.Lock()
	b.close(g)
	b.mu.Unlock()
	g.leave(gone)
	switch {
	case len(g.members) == 0:
		return
	case len(g.members) == 1 && (g.work != finding || turn.Of(g.members[0].ctx).Probe()):
		g.members[0].tell(outcome{apart: true}) // it takes fewer requests by itself
		return
	}
	ctx, cancel := g.context()
	defer cancel()
	ticket, done, err := b.admit(ctx, g)
	if err != nil {
		g.tellAll(outcome{err: b.noTurn(g, err)})
		return
	}
	defer done()
	if g.leave(gone); len(g.members) == 0 {
		return
	}
	ctx, stop := context.WithTimeout(turn.With(ctx, ticket), batchTime)
	defer stop()
	switch g.work {
	case finding:
		b.find(ctx, g)
	case extending:
		b.extend(ctx, g)
	case revoking:
		b.revoke(ctx, g)
	}
}

func gone(m *member) bool { return m.ctx.Err() != nil }

// admit waits for a place among the batches of g's urgency, so that few hold the account's turns and none keeps a more urgent
// one from it, and then for the turn.
func (b *batches) admit(ctx context.Context, g *batch) (ticket *turn.Ticket, done func(), err error) {
	ctx, cancel := context.WithTimeout(ctx, batchTime)
	defer cancel()
	urgency := g.urgency()
	select {
	case b.running[urgency] <- struct{}{}:
	case <-ctx.Done():
		return nil, nil, ctx.Err()
	}
	leave := func() { <-b.running[urgency] }
	if g.ending() {
		return nil, leave, nil
	}
	if ticket, err = b.account.turns.Wait(ctx, urgency, g.work.requests()); err != nil {
		leave()
		return nil, nil, err
	}
	return ticket, func() { ticket.Done(); leave() }, nil
}

// noTurn explains why a batch was not sent.
func (b *batches) noTurn(g *batch, err error) error {
	if outage := b.account.turns.Outage(); outage != nil {
		return &Error{Class: key.Outage, Op: ops[g.work], Err: outage}
	}
	return &Error{Class: key.Busy, Op: ops[g.work], Reason: "the account's requests are used up", Err: err}
}
