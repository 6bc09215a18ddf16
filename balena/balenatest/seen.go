package balenatest

import (
	"strings"
	"time"
)

// Request is a request that the server has seen.
type Request struct {
	At     time.Time
	Kind   string // as balena.Kinds, plus "other"
	Method string
	Path   string // without the query, decoded
	URI    string // path and query as they were sent
	Status int    // as sent; 0 if the connection was cut
	Client string // as the User-Agent header names it
}

// Requests returns all requests seen since the last call of Forget.
func (s *Server) Requests() []Request {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]Request(nil), s.seen...)
}

// Bearers returns every credential that requests came with: sessions and keys.
func (s *Server) Bearers() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var list []string
	for b := range s.bearers {
		list = append(list, b)
	}
	return list
}

func (s *Server) remember(authorization string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if bearer, ok := strings.CutPrefix(authorization, "Bearer "); ok && bearer != "" {
		s.bearers[bearer] = true
	}
}

// Forget drops the requests seen so far.
func (s *Server) Forget() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.seen = nil
}

// Count returns how many requests of that kind were seen; "" counts all.
func (s *Server) Count(kind string) int {
	n := 0
	for _, r := range s.Requests() {
		if kind == "" || r.Kind == kind {
			n++
		}
	}
	return n
}

// Counts returns how many requests of each kind were seen.
func (s *Server) Counts() map[string]int {
	counts := map[string]int{}
	for _, r := range s.Requests() {
		counts[r.Kind]++
	}
	return counts
}
