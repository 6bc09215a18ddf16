package main

import (
	"path/filepath"
	"testing"
)

// TestTenExecsInARow are short ones, as in a script: each has a key of its own and leaves none. Each logs in, unless
// they share a session.
func TestTenExecsInARow(t *testing.T) {
	const execs = 10
	for name, logins := range map[string]int{"each with a login": execs, "with a shared session": 1} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newExecStage(t)
			if logins == 1 {
				s.set("INJECTOR_SESSION_CACHE", filepath.Join(s.dir, "session"))
			}
			for n := 1; n <= execs; n++ {
				s.want(0, "exec", "--", "sh", "-c", `test ${#BALENA_TOKEN} = 32`)
				if mints := s.server.Count("mint"); mints != n {
					t.Errorf("%d mints for %d execs", mints, n)
				}
				s.wantLive(0)
			}
			if got := s.server.Count("login"); got != logins {
				t.Errorf("%d logins", got)
			}
		})
	}
}
