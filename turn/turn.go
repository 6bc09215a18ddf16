// Package turn shares the requests of one account between all its keys.
//
// A key asks for a turn before it sends anything, and says how urgent that is. The queue grants turns at the account's
// rate, the most urgent first, and those of equal urgency in the order in which they were asked for, so that no key is
// served twice before another is served once. An outage belongs to the account: while requests fail, one turn at a time
// is granted as a probe. When it succeeds, what keeps many keys alive goes first for some seconds, and the rest follow.
//
// It knows no HTTP and no keys.
package turn

import (
	"container/list"
	"context"
	"errors"
	"sync"
	"time"
)

// Urgency orders turns; a greater one goes first.
type Urgency int

// What turns are for.
const (
	Check  Urgency = iota // to ask about a key that is believed to be well
	Make                  // to mint: a first key, or the successor of one that is well
	Finish                // to complete what was begun: a minted key is verified before another one is minted
	Keep                  // to extend, to revoke, to learn an id
	Rescue                // an app's key is dead: its app is refused, and another key takes five requests or more
	Many                  // to extend, or to learn the ids of, many keys that live: each takes a small part of a request
	Save                  // to extend a key that is about to expire: a request or two keep its app from being refused

	urgencies = int(Save) + 1
)

const (
	// DefaultRate is how many requests an account sends in a minute at most. The only published yardstick is balena's
	// own CLI, which keeps itself under 350.
	DefaultRate = 300
	// ProbePause lies between two probes while requests fail.
	ProbePause = 15 * time.Second
	// emptyPause follows a probe for which nothing was sent after all.
	emptyPause = 100 * time.Millisecond
	// saving is how long after an outage no other turn that costs something is granted than those that keep many keys alive.
	saving = 5 * time.Second
	// failing is how many requests in a row must fail for the account's turns to stop: one that fails alone, always, is
	// not an outage.
	failing = 3
	// atOnce is how many turns are under way at once: a server does not answer faster for being asked by thousands.
	atOnce = 32
	// debts are requests that nobody asked a turn for, such as a login on the way; the burst leaves room for them.
	debts = 10
)

// ErrAlone says that something could not be done together with what others want, and needs a turn that pays for
// requests of its own.
var ErrAlone = errors.New("it cannot be done together with others, and waits for a turn of its own")

// Config says how a Queue grants turns. The zero value is DefaultRate for a single key.
type Config struct {
	PerMinute int // requests; 0 means DefaultRate
	// Shared reports that several keys use the queue, so that an outage is probed for all of them together.
	Shared bool
	// Outage, if not nil, is told when requests begin to fail, with the last failure, and when they succeed again, with
	// nil and how long that took. It must not block, nor call the queue.
	Outage func(failure error, after time.Duration)
}

// Queue grants turns. Make it with New. It is safe for concurrent use.
type Queue struct {
	cfg   Config
	start time.Time
	every time.Duration // one request comes in that time
	size  float64

	mu      sync.Mutex
	tokens  float64
	at      time.Duration        // when tokens was right
	waiting [urgencies]list.List // turns that cost something
	free    [urgencies]list.List // turns that do not, and wait for the end of an outage
	timer   *time.Timer          // to the next turn; nil: none is planned
	wakes   time.Duration        // when that is
	open    bool
	// underway are the turns that cost something, and were granted and not given back
	underway int

	failures int
	failure  error // why requests fail; nil while they do not
	began    time.Duration
	ended    time.Duration // when the last outage was over; 0: there was none
	probed   time.Duration // when the last probe was granted
	next     Urgency       // what is probed next, if somebody asks for it
}

// New returns a queue with a full burst: half a minute's requests.
func New(cfg Config) *Queue {
	if cfg.PerMinute <= 0 {
		cfg.PerMinute = DefaultRate
	}
	size := max(float64(cfg.PerMinute)/2-debts, float64(cfg.PerMinute)/4, 3)
	return &Queue{cfg: cfg, start: time.Now(), every: time.Minute / time.Duration(cfg.PerMinute), size: size, tokens: size, next: Save}
}

// Open lifts the rate, for benchmarks.
func (q *Queue) Open() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.open = true
	q.serve()
}

// Ticket is a turn that was asked for. All methods of a nil Ticket do nothing; it counts as granted.
type Ticket struct {
	q       *Queue
	urgency Urgency
	cost    int
	left    int // requests that are paid for
	wake    func()
	granted bool
	probe   bool          // in an outage, for all
	used    bool          // something was sent
	counted bool          // it is among those that are under way
	place   *list.Element // in the queue; nil: not in it
}

// Ask asks for a turn of cost requests, and calls wake when it is granted later; wake must not block, nor call the queue.
// A turn that costs nothing waits only while requests fail: what it leads to is paid for by somebody else, such as a batch,
// or is a request now and then.
func (q *Queue) Ask(u Urgency, cost int, wake func()) *Ticket {
	if q == nil {
		return nil
	}
	t := &Ticket{q: q, urgency: u, cost: cost}
	q.mu.Lock()
	defer q.mu.Unlock()
	t.place = t.list().PushBack(t)
	q.serve()
	t.wake = wake
	return t
}

// list is where the turn waits.
func (t *Ticket) list() *list.List {
	if t.cost == 0 {
		return &t.q.free[t.urgency]
	}
	return &t.q.waiting[t.urgency]
}

// Granted reports whether it is this turn's turn.
func (t *Ticket) Granted() bool {
	if t == nil {
		return true
	}
	t.q.mu.Lock()
	defer t.q.mu.Unlock()
	return t.granted
}

// For reports whether the turn was asked for like this.
func (t *Ticket) For(u Urgency, cost int) bool { return t != nil && t.urgency == u && t.cost == cost }

// Urgency returns how urgent the turn is; Keep for nil.
func (t *Ticket) Urgency() Urgency {
	if t == nil {
		return Keep
	}
	return t.urgency
}

// Alone reports whether the turn pays for requests of its own, which are not to be part of a batch.
func (t *Ticket) Alone() bool { return t != nil && t.cost > 0 }

// Probe reports whether the turn was granted to find out if an outage is over.
func (t *Ticket) Probe() bool {
	if t == nil {
		return false
	}
	t.q.mu.Lock()
	defer t.q.mu.Unlock()
	return t.probe
}

// Done gives the turn back: what was not used of it is another's.
func (t *Ticket) Done() {
	if t == nil {
		return
	}
	q := t.q
	q.mu.Lock()
	defer q.mu.Unlock()
	if t.place != nil {
		t.list().Remove(t.place)
		t.place = nil
	}
	if t.probe && !t.used && q.failure != nil {
		q.probed = q.now() - ProbePause + emptyPause // it has asked nothing: the next one does so
	}
	if t.counted {
		t.counted = false
		q.underway--
	}
	if t.left > 0 {
		q.fill()
		q.tokens = min(q.size, q.tokens+float64(t.left))
		t.left = 0
	}
	q.serve()
}

// Wait asks for a turn and waits until it is granted, or ctx is done.
func (q *Queue) Wait(ctx context.Context, u Urgency, cost int) (*Ticket, error) {
	granted := make(chan struct{})
	t := q.Ask(u, cost, func() { close(granted) })
	if t.Granted() {
		return t, nil
	}
	select {
	case <-granted:
		return t, nil
	case <-ctx.Done():
		t.Done()
		return nil, ctx.Err()
	}
}

type ticketKey struct{}

// With returns a context whose requests t pays for.
func With(ctx context.Context, t *Ticket) context.Context {
	return context.WithValue(ctx, ticketKey{}, t)
}

// Of returns the turn that pays for ctx's requests; nil: none does.
func Of(ctx context.Context) *Ticket {
	t, _ := ctx.Value(ticketKey{}).(*Ticket)
	return t
}

// Sent counts a request: against the turn of ctx, or, where there is none or it is used up, against the account, which
// grants the next turns later then.
func (q *Queue) Sent(ctx context.Context) {
	if q == nil {
		return
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	if t := Of(ctx); t != nil && t.q == q {
		t.used = true
		if t.left > 0 {
			t.left--
			return
		}
	}
	q.fill()
	q.tokens--
}

func (q *Queue) now() time.Duration { return time.Since(q.start) }
