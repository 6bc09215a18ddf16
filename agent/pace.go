package agent

import (
	"context"
	"errors"
	"time"
)

// ErrMayRestart as the cause of the stop context's end says that what started this process will probably do so again
// at once, as a platform does when a command has failed: the pace of mints goes on over the starts.
var ErrMayRestart = errors.New("it may be started again at once")

// mintRow is a row of starts that each had to mint a key. It begins anew after a life of some length, and after a stop
// that somebody asked for.
type mintRow struct {
	Last   time.Time `json:"last,omitzero"`   // when the last of them minted, by the local clock
	Starts int       `json:"starts,omitzero"` // how many did
	Again  bool      `json:"again,omitzero"`  // the last of them ended by itself, whether it minted or not
}

const (
	// firstGap lies between the mints of the first two starts of a row; it doubles up to longestGap.
	firstGap   = 30 * time.Second
	longestGap = 4 * time.Minute
	// longLife is how long a start must live for the next one to begin a row of its own.
	longLife = 10 * time.Minute
)

// gap is how long after the last mint of a row the next start may mint.
func (r mintRow) gap() time.Duration {
	if r.Starts == 0 {
		return 0
	}
	return min(firstGap<<min(r.Starts-1, 10), longestGap)
}

// wait is how long the next start must wait at the local time now. A clock that cannot be right costs nothing.
func (r mintRow) wait(now time.Time) time.Duration {
	ago := now.Sub(r.Last)
	if r.Starts == 0 || ago < 0 {
		return 0
	}
	return max(0, r.gap()-ago)
}

// noteMint counts the first mint of this start.
func (a *Agent) noteMint() {
	if !a.counted {
		a.counted = true
		a.journal.Mints.Last = a.clock.now().wall.UTC()
		a.journal.Mints.Starts++
	}
}

// endRow makes the next start the first of a row.
func (a *Agent) endRow() {
	if a.journal.Mints != (mintRow{}) {
		a.journal.Mints, a.unsaved = mintRow{}, true
	}
}

// noteLongLife ends the row of starts once this one has lived for some time.
func (a *Agent) noteLongLife(now instant) {
	if a.current != nil && now.mono-a.began >= longLife {
		a.endRow()
	}
}

// holdBack waits until a start that found nothing to adopt may mint: what the starts before it have sent and minted
// counts as if it were one process. It does not count towards the time for Init.
func (a *Agent) holdBack(stop context.Context) {
	if a.current != nil || a.showsSuccessor(stop) {
		return
	}
	row := a.journal.Mints
	need, pace := shortestWay, time.Duration(0)
	if a.successor == nil && (row.Again || row.Starts > 0) { // else its mint was counted, or somebody asked for this start
		need, pace = shortestWay+2, row.wait(a.clock.now().wall)
		if row.Starts > 0 || len(a.all()) > 0 { // the last one had something to revoke, and so will this one
			need += endReserve
		}
	}
	wait := max(pace, a.cfg.Budget.untilHas(need))
	if wait <= 0 || stop.Err() != nil {
		return
	}
	until := a.clock.now().wall.Add(wait)
	why := "the starts before this one sent many requests"
	if pace > 0 {
		why = "the last start ended by itself soon after its mint"
	}
	a.waitsUntil = until
	a.waiting = "waiting until " + until.UTC().Format(time.RFC3339) + ", because " + why
	a.log.Warn("waiting before a key is minted, because "+why+"; a start after a stop that has left nothing does not wait",
		"for", wait.Round(time.Second), "until", until.UTC().Truncate(time.Second), "failed_starts", row.Starts)
	end := a.clock.now().mono + wait // a wall clock that is set does not make a start hurry
	for now := a.clock.now().mono; now < end && stop.Err() == nil; now = a.clock.now().mono {
		a.beat.Store(int64(now))
		a.publishStatus("running")
		pause(stop, min(maxSleep, end-now))
	}
	a.waiting = ""
}
