package balenatest

import "time"

// ShiftClock sets how far the server's clock is ahead.
func (s *Server) ShiftClock(d time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.shift = d
}

// SetDown takes the server's database away, or gives it back: a key or a login then gets 401, a
// session and an anonymous reader 500.
func (s *Server) SetDown(down bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.down = down
}

// SetRestarting makes every connection break without an answer, as while the server restarts.
func (s *Server) SetRestarting(away bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.away = away
}

// SetRefusing makes the server of a Pipe refuse connections and cut those that it has, or ends that.
func (s *Server) SetRefusing(on bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.away, s.refuses = on, on
}

// Settle waits until every effect that was to come later has come.
func (s *Server) Settle() { s.pending.Wait() }
