package probe

import (
	"context"
	"sync"
	"time"
)

// MaxHold is how long an answer to a health check may be held.
const MaxHold = 5 * time.Minute

const (
	// holdPoll is how often a held check looks whether the answer is another one by now.
	holdPoll = 2 * time.Second
	// holdAfter is how many times in a row "not ready" is answered at once: engines ask three times before they say
	// "unhealthy".
	holdAfter = 3
)

// patience holds answers to those who ask every two seconds, because their engine knows no other interval while an
// injector starts. Each question costs the engine a process. News is answered at once; what they know already is
// answered when it changes, or after the time that they name.
type patience struct {
	mu    sync.Mutex
	ready bool
	same  int // how often that was answered in a row
}

// wait returns when the answer is news, or has been held for long enough.
func (p *patience) wait(ctx context.Context, hold time.Duration, ready func() bool) {
	now := ready()
	defer func() { p.note(now) }()
	if !p.known(now) {
		return
	}
	end := time.NewTimer(hold)
	defer end.Stop()
	poll := time.NewTicker(holdPoll)
	defer poll.Stop()
	for before := now; now == before; now = ready() {
		select {
		case <-poll.C:
		case <-end.C:
			return
		case <-ctx.Done():
			return
		}
	}
}

// known reports whether that was answered often enough.
func (p *patience) known(ready bool) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.ready == ready && (ready && p.same > 0 || p.same >= holdAfter)
}

func (p *patience) note(ready bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.ready != ready {
		p.ready, p.same = ready, 0
	}
	p.same++
}
