package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"strings"
	"sync/atomic"
	"time"

	"github.com/balena-injector/injector/key"
	"github.com/balena-injector/injector/turn"
)

// Config is what an agent is made of. All fields are required unless they say otherwise; New does not check them.
type Config struct {
	Issuer    Issuer
	Publisher Publisher
	Store     Store   // nobody else may use it meanwhile
	Budget    *Budget // the one that Issuer counts against
	Times     Times
	// Proven is when Publisher.Prove succeeded last, which need not be repeated at once; zero: not yet.
	Proven time.Time

	URL    string   // the API's, as balena.CheckURL returns it; a key of the journal is never sent to another one
	Login  string   // whose credential it is, as far as the configuration says; may be empty
	Kind   key.Kind // of the keys
	Target string   // the fleet or device as configured: slug, uuid or id; empty for user keys
	// Outputs are the paths that the publisher writes, for the journal's reader; may be empty.
	Outputs []string

	InitTimeout     time.Duration // for Init and Supervise; with 0 they give up at once
	ShutdownDelay   time.Duration // how long the key lives on after a stop; part of the next; may be 0
	ShutdownTimeout time.Duration // for all of an orderly end
	KeepOnExit      bool          // hand over instead of revoking; may be false

	Crowd Crowd // zero: the agent is alone

	Log *slog.Logger
	// Advise, if not nil, returns what a person could do about an error, or "".
	Advise func(error) string
	// Announce, if not nil, is told what the app can rely on now: a key that was published, or one
	// that was adopted and is verified. news reports whether the app may have read another one before.
	// It must not wait.
	Announce func(p key.Publication, news bool)
	// Retract, if not nil, is told before the outputs are removed: from then on nothing is to be announced. It
	// must not wait.
	Retract func()
	// Wall, if not nil, replaces the wall clock, for tests.
	Wall func() time.Time
	// Random, if not nil, replaces the source of jitter, uniform in [0, 1), for tests that must
	// be repeatable.
	Random func() float64
}

// Agent keeps one key. Make it with New, then call exactly one of Init, Run, Supervise, Drain and Revoke, once. All other
// methods may be called at any time and from any goroutine.
type Agent struct {
	cfg   Config
	log   *slog.Logger
	clock clock
	wake  chan struct{}
	kill  context.Context // done: give up at once

	// Owned by the goroutine in the method that works.
	journal   journal
	undecided []*holding // whether they are ours takes Identify
	current   *holding   // what the app reads
	successor *holding   // what it will read
	retiring  []*holding
	stranded  []*holding // of another account or server: named, left to expire
	steps     map[step]*streak
	userID    int64
	ignores   bool // the server ignores chosen secrets
	nextCheck instant
	nextTend  instant
	tendDone  bool      // nothing to tend, as things are
	timed     bool      // deadlines are by the server's time
	untold    bool      // the adopted key may be news to the app
	damage    error     // what was wrong with the outputs when they were looked at last
	inspected instant   // when that was; zero: look again
	proven    time.Time // when it was found last that the outputs can be written
	shown     bool      // the app reads the successor already: the last start was killed between the file and the journal
	renewNow  bool      // somebody asked for an extension or rotation now
	hurried   bool      // somebody waits for Init to end
	unsaved   bool      // an expiry is yet to be written to the journal
	unlabeled bool      // the outputs' expiry is yet to be written beside them
	warned    bool      // that keys are not listed here
	repaired  instant
	// repairPause grows while somebody keeps changing the outputs
	repairPause time.Duration
	pace        pace
	failedAt    instant         // of the last repeated failure that was logged
	diskWait    context.Context // done: journal writes are not waited for any longer
	writer      journalWriter
	began       time.Duration // when this start found its keys, on the monotonic clock
	counted     bool          // a mint of this start is in the journal's row
	waiting     string        // why nothing is minted yet
	waitsUntil  time.Time     // how long that lasts
	brief       bool          // somebody else takes the key over: it lives for firstLife at most
	draining    bool          // nothing but revoking
	// credentialNews: another credential is there since the session was looked after
	credentialNews bool
	turn           time.Duration // how long the step that runs may take; 0: no matter

	ticket   *turn.Ticket // the turn that was asked for; nil: none
	doubting bool         // a list gives reason to ask for the key itself
	missing  bool         // namely that the key is not in it

	renewAsked   atomic.Bool
	tryAsked     atomic.Bool
	news         atomic.Bool  // see Wake
	lookAsked    atomic.Bool  // see LookAgain
	restsUntil   atomic.Int64 // until when the loop sleeps, on the monotonic clock
	inDoubt      atomic.Bool  // see Doubt
	isMissing    atomic.Bool  // likewise
	wantsSight   atomic.Bool
	sightedAt    atomic.Int64 // when a list showed the key last, on the monotonic clock; 0: never
	sighting     atomic.Pointer[sighting]
	bed          bed
	goOn         func()       // ends a rest
	acknowledged atomic.Int64 // the generation that all notification targets know of
	stopped      atomic.Int64 // when the stop came, on the monotonic clock; 0: not yet
	status       atomic.Pointer[snapshot]
	beat         atomic.Int64 // when the loop last turned, on the monotonic clock
	counters     counters

	lastSuccess time.Time        // of a step that asks the server, by the local clock
	failures    map[string]int64 // of each step; a snapshot may have it, so it is replaced, not changed
}

// pace spaces out mints that nobody planned.
type pace struct {
	last  instant
	any   bool
	young int // keys in a row that died young
}

// ErrHandOver as the cause of the stop context's end makes Init, Supervise, Run and Drain leave keys to the next start.
var ErrHandOver = errors.New("handing over to the next start")

// ErrInitTimeout is what Init returns, wrapped, when nothing was published in time.
var ErrInitTimeout = errors.New("nothing was published in time")

// LeftError names the keys that could have been revoked, and were left to expire: one at least. Run, Supervise, Drain and
// Revoke return it. It does not unwrap to its cause: that keys are left says more than why.
type LeftError struct {
	Keys  []KeyStatus
	Cause error // why the last of them was left; may be nil
}

// Error names the keys.
func (e *LeftError) Error() string {
	names := make([]string, len(e.Keys))
	for i, k := range e.Keys {
		names[i] = fmt.Sprintf("%s (id %d, expires %s)", k.Name, k.ID, k.Expiry.UTC().Format(time.RFC3339))
	}
	text := "left to expire, not revoked: " + strings.Join(names, ", ")
	if e.Cause != nil {
		text += ": " + e.Cause.Error()
	}
	return text
}

// New returns an agent. It does nothing yet.
func New(cfg Config) *Agent {
	if cfg.Random == nil {
		cfg.Random = rand.Float64
	}
	a := &Agent{
		cfg:    cfg,
		log:    cfg.Log,
		clock:  newClock(cfg.Wall),
		wake:   make(chan struct{}, 1),
		steps:  map[step]*streak{},
		proven: cfg.Proven,
	}
	a.beat.Store(int64(time.Since(a.clock.start)))
	a.status.Store(&snapshot{Status: Status{Phase: "starting"}, reason: "starting"})
	return a
}

// Wake tells the agent that something may have changed, such as a credential or a template: steps
// that rest because of a refusal, or because nothing could be published, are due again. It never
// blocks.
func (a *Agent) Wake() {
	a.news.Store(true)
	a.nudge()
}

// LookAgain makes the agent look at its outputs, at the place of its journal and at the clocks now. It never blocks.
func (a *Agent) LookAgain() {
	a.lookAsked.Store(true)
	a.nudge()
}

// Renew makes the agent extend or rotate its key now, or as soon as there is one. At its end it does nothing. It never
// blocks.
func (a *Agent) Renew() {
	a.renewAsked.Store(true)
	a.Wake()
}

// TryCredential makes the agent look after its session now: another credential is there, and what comes of it must be
// known before it is needed. At its end it does nothing. It never blocks.
func (a *Agent) TryCredential() {
	a.tryAsked.Store(true)
	a.Wake()
}

// Acknowledge records that all notification targets know of generation n. n is 1 for the first. What was not
// acknowledged is announced as news by the next start that adopts the key.
func (a *Agent) Acknowledge(n int) {
	if a.acknowledged.Swap(int64(n)) != int64(n) {
		a.Wake()
	}
}

// serverNow is the server's time as well as we know it.
func (a *Agent) serverNow() time.Time {
	now, _ := a.cfg.Issuer.Now()
	return now
}

// jitter draws a new key's jitter.
func (a *Agent) jitter() time.Duration { return a.cfg.Times.jitterFor(a.cfg.Random()) }
