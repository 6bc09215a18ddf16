package balena

import (
	"context"
	"net/http"
	"time"

	"github.com/balena-injector/injector/key"
	"github.com/balena-injector/injector/turn"
)

// lane is the gate of one key in front of the account's: the key's own says whether a request may be sent, and the
// account's turns count it.
type lane struct {
	Gate
	turns *turn.Queue
}

// newLane returns the gate of a key of that account; own may be nil.
func newLane(own Gate, a *Account) lane {
	if own == nil {
		own = obedient{}
	}
	return lane{own, a.turns}
}

// sent counts a request of ctx in the account's turns.
func (p pass) sent(ctx context.Context) {
	if l, ok := p.gate.(lane); ok {
		l.turns.Sent(ctx)
	}
}

// report tells the account's turns what came of a request, if that says whether the server is well: it answered in
// the form of this API, or not at all, or somebody else did in its place. A 401 may be an outage, and what was cut off by
// ourselves says nothing.
func (r *request) report(ctx context.Context, a *answer, err error) {
	l, ok := r.gate.(lane)
	if !ok {
		return
	}
	switch class, _ := key.ClassOf(err); {
	case ctx.Err() != nil:
	case err == nil && (a.authentic || a.status == http.StatusConflict):
		l.turns.Succeeded()
	case err == nil && a.status == http.StatusOK && r.hasForm():
		l.turns.Failed(r.notThisAPI(key.Outage, a, "not an answer that this API gives"))
	case class == key.Outage || class == key.Ambiguous:
		l.turns.Failed(err)
	}
}

// shared is the gate of what several keys send together: it is the account's alone. At their end what the server asks to
// wait for is not waited for, as with each key's own.
type shared struct{ ending bool }

func (s shared) Admit(held time.Duration) time.Duration {
	if s.ending {
		return 0
	}
	return held
}

func (shared) Charge() {}
