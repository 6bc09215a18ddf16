package turn

import "time"

// fill adds what has come since the last call.
func (q *Queue) fill() {
	now := q.now()
	q.tokens = min(q.size, q.tokens+float64(now-q.at)/float64(q.every))
	q.at = now
}

// serve grants what can be granted, and sees to it that the rest is looked at in time. The caller holds mu.
func (q *Queue) serve() {
	q.fill()
	if q.failure != nil {
		q.probe()
		return
	}
	for u := Save; u >= Check; u-- {
		for e := q.free[u].Front(); e != nil; e = q.free[u].Front() {
			q.grant(e.Value.(*Ticket))
		}
	}
	for u := Save; u >= Check; u-- {
		if wait := q.savingFirst(u); wait > 0 {
			q.wakeIn(wait)
			return
		}
		for e := q.waiting[u].Front(); e != nil; e = q.waiting[u].Front() {
			t := e.Value.(*Ticket)
			if q.underway >= atOnce {
				return // Done goes on
			}
			if missing := min(float64(t.cost), q.size) - q.tokens; missing > 0 && !q.open {
				q.wakeIn(time.Duration(missing*float64(q.every)) + time.Millisecond)
				return
			}
			q.grant(t)
		}
	}
}

// savingFirst is how long turns of that urgency wait after an outage. What keeps many keys alive gathers for a moment before it
// asks: without this the burst would be spent on keys that can wait, and thousands that have expired on the next minute's
// requests. The caller holds mu.
func (q *Queue) savingFirst(u Urgency) time.Duration {
	if u >= Many || q.ended == 0 {
		return 0
	}
	return max(0, q.ended+saving-q.now())
}

// grant grants a turn. The caller holds mu.
func (q *Queue) grant(t *Ticket) {
	t.list().Remove(t.place)
	t.place, t.granted, t.left = nil, true, t.cost
	if t.cost > 0 {
		t.counted = true
		q.underway++
	}
	q.tokens -= float64(t.cost)
	if t.wake != nil {
		t.wake()
	}
}

// wakeIn plans to serve again in d, unless that is planned already. The caller holds mu.
func (q *Queue) wakeIn(d time.Duration) {
	at := q.now() + d
	if q.timer != nil && q.wakes <= at && q.wakes > q.now() {
		return
	}
	if q.timer != nil {
		q.timer.Stop()
	}
	q.wakes = at
	q.timer = time.AfterFunc(d, func() {
		q.mu.Lock()
		defer q.mu.Unlock()
		q.timer = nil
		q.serve()
	})
}
