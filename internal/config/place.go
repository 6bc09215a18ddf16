package config

import (
	"crypto/sha256"
	"fmt"
	"os"
	"path/filepath"
)

// Place is where an injector keeps its state, for commands that ask one or look for it. The rest of the configuration
// does not matter to them: a template that is wrong must not keep anybody from asking how things are.
type Place struct {
	Dir      string
	Explicit bool     // the configuration says so; else Dir is a default
	Outputs  []string // that the configuration names; empty: it leaves them to the default, or has none
}

// Locate finds the place of an injector with that environment, of exec if supervising. What is wrong elsewhere in the
// configuration does not matter.
func Locate(env Environ, supervising bool) (Place, error) {
	p := &parser{env: env, Options: Options{WithoutFiles: true, Supervising: supervising}}
	p.scope = p.of("")
	s := p.all()
	for _, q := range p.problems { // elsewhere it would look for what cannot be there
		if q.Variable == "INJECTOR_STATE_DIR" || q.Variable == "INJECTOR_OUTPUT" {
			return Place{}, Problems{q}
		}
	}
	at := Place{Dir: s.StateDir, Explicit: env.Get("INJECTOR_STATE_DIR") != ""}
	for _, k := range s.Keys {
		of := p.of(k.Name)
		if k.Name != "" || of.get("INJECTOR_OUTPUT") != "" || of.get("INJECTOR_TEMPLATES") != "" {
			at.Explicit, at.Outputs = true, append(at.Outputs, k.Paths()...)
		}
	}
	if at.Dir == "" {
		at.Dir = filepath.Join(filepath.Dir(DefaultOutput), ".injector")
	}
	return at, nil
}

// ExecPlace begins the paths of all places that exec chooses by itself for this user: in memory in every container.
func ExecPlace() string { return fmt.Sprintf("/dev/shm/injector-%d-", os.Getuid()) }

// execStateDir is where exec keeps its state if nothing else is said: for each user and configuration another, since the
// containers of a pod share that file system.
func execStateDir(s *Settings) string {
	h := sha256.New()
	_, _ = fmt.Fprintf(h, "%q", s.API.URL)
	for _, k := range s.Keys {
		_, _ = fmt.Fprintf(h, "%q %q %q %q %q %q", k.Name, k.Account.Login, k.Kind, k.Target.String(), k.Prefix, k.Variables)
	}
	return fmt.Sprintf("%s%x", ExecPlace(), h.Sum(nil)[:4])
}
