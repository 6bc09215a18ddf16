package balenatest

import (
	"net/http"
	"time"
)

// Fault makes requests go wrong. The zero value answers every request with nothing at all: the
// connection is cut before it took effect.
type Fault struct {
	Kind  string           // which requests, by kind; "" means all
	Match func(Match) bool // further condition; nil: none

	Skip  int           // so many requests pass first
	Times int           // how many are hit; 0 means all
	Until time.Time     // and none from then on; zero: no end
	For   time.Duration // and none so long after the first; 0: no end

	After  bool          // it takes effect first, and then goes wrong
	Late   time.Duration // it takes effect that much later, also when the client is gone by then
	Delay  time.Duration // the answer comes that much later
	Hang   bool          // there is no answer, and the connection stays open until the client leaves
	Slow   time.Duration // pause before each byte of the body
	Cut    int           // so many bytes of the body are sent, then the connection is cut
	Pass   bool          // answer as if all were well, but for Delay and Slow; without an effect, unless After is set
	Status int           // answer with this status; 0 cuts the connection
	Header http.Header
	Body   string
	Echo   bool // the body ends with what was sent: the bearer and the request's body
	Hollow bool // a lie: 200 as if all were well, without an effect; see hollow
	// Half is a proxy that loses half of a list in a filter, and Unfiltered one that loses the whole query; the request takes
	// effect like that.
	Half, Unfiltered bool
	// Later adds a Retry-After that is a date, so much later than the server's time.
	Later time.Duration

	hits int
}

// Match is what a Fault's condition can look at.
type Match struct {
	Method, Path string
	Session      bool // the bearer looks like a session
	Several      bool // it is about a list of ids or names
}

// Fail adds a fault. Of several that match a request, the first added counts. The function that
// it returns tells how often the fault has hit, and when it ends or ended: the zero time while
// that is not known.
func (s *Server) Fail(f Fault) (hits func() (int, time.Time)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	fault := &f
	s.faults = append(s.faults, fault)
	return func() (int, time.Time) {
		s.mu.Lock()
		defer s.mu.Unlock()
		return fault.hits, fault.Until
	}
}

// Heal removes all faults.
func (s *Server) Heal() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.faults = nil
}

// faultFor returns the fault that hits a request, and uses it up.
func (s *Server) faultFor(kind string, m Match) *Fault {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i, f := range s.faults {
		switch {
		case f.Kind != "" && f.Kind != kind, f.Match != nil && !f.Match(m), !f.Until.IsZero() && !time.Now().Before(f.Until):
			continue
		case f.Skip > 0:
			f.Skip--
			continue
		}
		if f.For > 0 && f.Until.IsZero() {
			f.Until = time.Now().Add(f.For)
		}
		f.hits++
		if f.Times > 0 {
			if f.Times--; f.Times == 0 {
				f.Until = time.Now()
				s.faults = append(s.faults[:i:i], s.faults[i+1:]...)
			}
		}
		hit := *f
		return &hit
	}
	return nil
}
