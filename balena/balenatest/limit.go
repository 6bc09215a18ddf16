package balenatest

import (
	"fmt"
	"math"
	"net/http"
	"time"
)

// limit is how many requests a server answers in each window; the others get 429 and are told
// when the window ends.
type limit struct {
	requests int
	window   time.Duration
	began    time.Time
	used     int
}

// SetLimit makes the server answer at most so many requests in each window, over all clients.
// 0 requests: no limit.
func (s *Server) SetLimit(requests int, window time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.limit = limit{requests: requests, window: window}
}

// overLimit counts a request. One that is too many gets the answer that it returns.
func (s *Server) overLimit() (reply, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	l := &s.limit
	if l.requests == 0 {
		return reply{}, false
	}
	now := time.Now()
	if now.Sub(l.began) >= l.window {
		l.began, l.used = now, 0
	}
	if l.used++; l.used <= l.requests {
		return reply{}, false
	}
	wait := math.Ceil((l.window - now.Sub(l.began)).Seconds())
	return reply{http.StatusTooManyRequests, http.Header{"Retry-After": {fmt.Sprint(wait)}}, []byte("Too Many Requests")}, true
}
