package agent

import (
	"sync"
	"time"
)

const (
	budgetSize   = 20 - 1 // one is kept for a repetition that is only charged afterwards
	budgetRefill = 30 * time.Second
)

// Budget limits the requests of one key, whatever fails: some 20 at once and one more every 30 s,
// so at most 40 in any 10 minutes. A schedule that needs more by itself (a TTL of a few minutes or
// less, a check every few seconds) gets just that.
//
// It is safe for concurrent use. Make it with NewBudget.
type Budget struct {
	mu     sync.Mutex
	start  time.Time
	refill time.Duration
	tokens float64
	at     time.Duration // when tokens was right
	open   bool
	// ending and granted: see end
	ending  bool
	granted int
	// forgotten: the next process begins with a full budget
	forgotten bool
}

// NewBudget returns a full budget for that schedule. rotating reports that the keys cannot be
// extended, so that each one is replaced.
func NewBudget(t Times, rotating bool) *Budget {
	return &Budget{start: time.Now(), refill: refillFor(t, rotating), tokens: budgetSize}
}

// refillFor returns how often a request is added to the budget.
func refillFor(t Times, rotating bool) time.Duration {
	const extension, rotation = 2, 14 // requests: PATCH and read; all of a key's birth and end
	shortest := float64(t.TTL) / 2    // between two extensions, with the most jitter
	perSecond := 1/t.Check.Seconds() + extension/(shortest/float64(time.Second))
	if rotating {
		perSecond += rotation / (shortest / float64(time.Second))
	} else if t.MaxTTL > 0 {
		perSecond += rotation / max(t.MaxTTL-t.TTL, t.TTL/2).Seconds()
	}
	return min(budgetRefill, time.Duration(float64(time.Second)/perSecond))
}

// reserve is how much of the budget a step that keeps failing must leave: when the failure ends,
// the whole way to a good key has to be walked at once.
const reserve = 8

const (
	// aliveReserve is how much a failing step must leave while the app's key lives: enough for the last calls around its
	// expiry and for the way to a good key after that.
	aliveReserve = 12
	// shortestWay is how many requests a good key takes at least: mint, verify, and a session.
	shortestWay = 4
	// endReserve is how many more a start wants to find that follows others: what it mints it must be able to revoke.
	endReserve = 6
	// endGrant is how many requests the end of one key gets in any case: a session, the fate of its mint, its row, the
	// DELETE and the proof.
	endGrant = 5
	// deepest is how far a process that ends may overdraw: the next one then waits for minutes, and not for an hour.
	deepest = 8
	// reserveAfter is how long a step rests for the sake of the reserve at most.
	reserveAfter = 45 * time.Second
	// expiredRest is the same once the app's key has expired.
	expiredRest = 15 * time.Second
)

// untilHas returns how long it is until n requests are there.
func (b *Budget) untilHas(n int) time.Duration {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.fill()
	if b.open || b.tokens >= float64(n) {
		return 0
	}
	return time.Duration((float64(n)-b.tokens)*float64(b.refill)) + time.Millisecond
}

// fill adds what has come since the last call.
func (b *Budget) fill() {
	now := time.Since(b.start)
	b.tokens = min(budgetSize, b.tokens+float64(now-b.at)/float64(b.refill))
	b.at = now
}

// Admit takes a request from the budget, unless the server wants us to wait (held), and
// returns 0; or it takes nothing and returns how long to wait.
func (b *Budget) Admit(held time.Duration) time.Duration {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.fill()
	switch {
	case held > 0 && !b.ending && !b.open:
		return held
	case b.open || b.tokens >= 1:
	case b.granted > 0:
		b.granted--
	default:
		return time.Duration((1-b.tokens)*float64(b.refill)) + time.Millisecond
	}
	b.tokens--
	return 0
}

// Charge takes a request that was sent without asking.
func (b *Budget) Charge() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.fill()
	b.tokens--
}

// carriedBudget is what a process leaves to the next one: a platform that starts it again and again must not multiply
// the requests.
type carriedBudget struct {
	Tokens float64   `json:"tokens"`
	At     time.Time `json:"at"`
}

// carry returns what is left at a time.
func (b *Budget) carry(now time.Time) carriedBudget {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.forgotten {
		return carriedBudget{}
	}
	b.fill()
	return carriedBudget{max(b.tokens, -deepest), now.UTC()}
}

// resume goes on where an earlier process was. A clock that cannot be right forgives everything.
func (b *Budget) resume(c carriedBudget, now time.Time) {
	ago := now.Sub(c.At)
	if c.At.IsZero() || ago < 0 || ago > time.Hour {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.fill()
	b.tokens = min(b.tokens, max(c.Tokens, -deepest)+float64(ago)/float64(b.refill))
}

// forget leaves nothing to the next process: see carry.
func (b *Budget) forget() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.forgotten = true
}

// end begins the end of the process: what the server asks to wait for is not waited for, since there is no time, and
// granted requests are there even if the budget is used up. The next process pays for them.
func (b *Budget) end(granted int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.ending, b.granted = true, granted
}

// Ending reports whether the process is about to end, so that there is no time to wait.
func (b *Budget) Ending() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.ending
}

// Open lifts the limit, for benchmarks.
func (b *Budget) Open() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.open = true
}
