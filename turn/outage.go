package turn

import (
	"math"
	"time"
)

// Succeeded notes that the server has answered a request properly.
func (q *Queue) Succeeded() {
	if q == nil {
		return
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	q.failures = 0
	if q.failure == nil {
		return
	}
	q.failure, q.ended = nil, q.now()
	if q.cfg.Outage != nil {
		q.cfg.Outage(nil, q.now()-q.began)
	}
	q.serve()
}

// Failed notes that a request has failed because the server is unhealthy or cannot be reached.
func (q *Queue) Failed(err error) {
	if q == nil || !q.cfg.Shared {
		return
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.failures++; q.failures < failing {
		return
	}
	if q.failure == nil {
		q.began, q.probed, q.next = q.now(), q.now(), Save
		if q.cfg.Outage != nil {
			q.cfg.Outage(err, 0)
		}
	}
	q.failure = err
}

// Outage returns why requests fail at the moment, and nil while they do not.
func (q *Queue) Outage() error {
	if q == nil {
		return nil
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.failure
}

// Calm returns how long no outage has been known: 0 in one, and a long time if there was none.
func (q *Queue) Calm() time.Duration {
	if q == nil {
		return math.MaxInt64
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	switch {
	case q.failure != nil:
		return 0
	case q.ended == 0:
		return math.MaxInt64
	}
	return q.now() - q.ended
}

// probe grants one turn if a probe is due: of the next urgency that somebody asks for, so that a server that answers some
// requests and not others is found to be well as far as it is. The caller holds mu.
func (q *Queue) probe() {
	if wait := q.probed + ProbePause - q.now(); wait > 0 {
		q.wakeIn(wait)
		return
	}
	for range urgencies {
		u := q.next
		if q.next--; q.next < Check {
			q.next = Save
		}
		e := q.free[u].Front()
		if e == nil {
			e = q.waiting[u].Front()
		}
		if e != nil {
			q.probed = q.now()
			t := e.Value.(*Ticket)
			t.probe = true
			q.grant(t)
			q.wakeIn(ProbePause)
			return
		}
	}
}
