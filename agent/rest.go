package agent

import (
	"context"
	"sync"
	"time"
)

// bed is where an agent waits: nothing of it runs meanwhile, no goroutine either. A timer, or who has news for it, lets it
// go on.
type bed struct {
	mu      sync.Mutex
	timer   *time.Timer // nil: it has not rested yet
	resting bool
	news    bool // somebody had news while it did not rest
}

// Start is Run that returns at once: ended is called, from another goroutine, with what Run would return.
func (a *Agent) Start(stop, kill context.Context, ended func(error)) {
	a.kill, a.diskWait = kill, stop
	undo := a.watch(stop)
	a.goOn = func() {
		if a.loopUntilRest(stop) {
			err := a.end(stop)
			undo()
			ended(err)
		}
	}
	go func() {
		var err error
		if a.cfg.Crowd.Files.Do(stop, func() { err = a.open(stop) }) != nil {
			err = a.open(stop) // there is something to revoke all the same
		}
		if err != nil {
			undo()
			ended(err)
			return
		}
		a.holdBack(stop)
		a.goOn()
	}()
}

// loopUntilRest runs the steps that are due. It reports whether the agent is to end; otherwise it rests.
func (a *Agent) loopUntilRest(stop context.Context) (over bool) {
	for {
		wait, over, _ := a.turnOnce(stop, false)
		if over {
			return true
		}
		if wait > 0 && a.layDown(wait) {
			return false
		}
	}
}

// layDown lets the agent rest for d, unless there is news.
func (a *Agent) layDown(d time.Duration) bool {
	a.restsUntil.Store(int64(time.Since(a.clock.start) + d))
	r := &a.bed
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.news {
		r.news = false
		a.woken()
		return false
	}
	r.resting = true
	if r.timer == nil {
		r.timer = time.AfterFunc(d, func() { a.rouse(false) })
	} else {
		r.timer.Reset(d)
	}
	return true
}

// nudge ends the agent's rest, or the next one before it begins. It never blocks.
func (a *Agent) nudge() {
	select {
	case a.wake <- struct{}{}: // for who waits in sleep
	default:
	}
	a.rouse(true)
}

// rouse lets the agent go on, on a goroutine of its own; news reports that somebody has something for it.
func (a *Agent) rouse(news bool) {
	r := &a.bed
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.resting {
		r.news = r.news || news
		return
	}
	r.resting = false
	r.timer.Stop()
	go func() {
		if news {
			a.woken()
		}
		a.goOn()
	}()
}
