// Package probe answers the questions that others have about a running agent: is it alive, can
// an app rely on it, what does it hold, and the same as metrics. It answers on a Unix socket in
// the state directory and, if wanted, on a TCP address.
package probe

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/balena-injector/injector/agent"
)

// SocketName is the socket's name in the state directory.
const SocketName = "injector.sock"

// Agent is what is asked.
type Agent interface {
	Ready() (bool, string)
	Alive() bool
}

// Report is what the socket tells beyond probes: everything about a process and its keys.
type Report struct {
	Ready     bool          `json:"ready"`  // apps can rely on every key
	Reason    string        `json:"reason"` // why not; empty if they can
	PID       int           `json:"pid"`
	Version   string        `json:"version"`
	Command   string        `json:"command"`
	ClockSkew time.Duration `json:"clock_skew_ns"` // how far the local clock is ahead
	Keys      []KeyReport   `json:"keys"`
}

// KeyReport is everything about one key.
type KeyReport struct {
	Name string `json:"name,omitempty"` // in INJECTOR_KEYS; empty: the only one
	agent.Status
	Outputs       []string      `json:"outputs"`
	SessionExpiry time.Time     `json:"session_expires,omitzero"` // by the server's clock
	TTL           time.Duration `json:"ttl_ns"`
	MaxTTL        time.Duration `json:"max_ttl_ns"`
	Overlap       time.Duration `json:"overlap_ns"`
	Untold        []string      `json:"untold,omitempty"` // notifications that failed at their last try, and why
	// Credential says why the credential did not work when it was used or read last; empty if it did.
	Credential string `json:"credential_trouble,omitempty"`
}

// Server answers. All fields are required.
type Server struct {
	Agent   Agent
	Report  func() Report
	Metrics func(io.Writer)
	Outputs func() []string // the paths that this process keeps
	// Ask does what a person asks for through the socket: "handover", "no-handover" or "reread".
	Ask func(what string) (answer string, err error)
}

// Serve answers on the listeners until ctx is done.
func (s *Server) Serve(ctx context.Context, socket, tcp net.Listener) error {
	group, ctx := errgroup.WithContext(ctx)
	serve := func(l net.Listener, h http.Handler) {
		if l == nil {
			return
		}
		srv := &http.Server{Handler: h, ReadHeaderTimeout: 5 * time.Second, WriteTimeout: 10 * time.Second, IdleTimeout: 10 * time.Second,
			MaxHeaderBytes: 8 << 10, ConnState: newCrowd().note, ErrorLog: log.New(io.Discard, "", 0)}
		group.Go(func() error {
			defer context.AfterFunc(ctx, func() { _ = srv.Close() })()
			if err := srv.Serve(l); !errors.Is(err, http.ErrServerClosed) {
				return err
			}
			return nil
		})
	}
	serve(socket, s.private())
	serve(tcp, s.public())
	return group.Wait()
}

func (s *Server) public() *http.ServeMux {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /livez", func(w http.ResponseWriter, _ *http.Request) {
		answer(w, s.Agent.Alive(), "the agent's loop does not turn")
	})
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, r *http.Request) {
		ready, reason := s.Agent.Ready()
		if other := s.another(r.URL.Query()["output"]); other != "" {
			ready, reason = false, other
		}
		answer(w, ready, reason)
	})
	mux.HandleFunc("GET /metrics", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
		s.Metrics(w)
	})
	return mux
}

func (s *Server) private() *http.ServeMux {
	mux := s.public()
	mux.HandleFunc("POST /ask/{what}", func(w http.ResponseWriter, r *http.Request) {
		text, err := s.Ask(r.PathValue("what"))
		if err != nil {
			answer(w, false, err.Error())
			return
		}
		_, _ = io.WriteString(w, text+"\n")
	})
	mux.HandleFunc("GET /status", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(s.Report())
	})
	return mux
}

// another says that this process does not keep one of the outputs that somebody asks about: two injectors can share a
// state directory, though not at the same time. It returns "" if it keeps them all.
func (s *Server) another(outputs []string) string {
	if len(outputs) == 0 {
		return ""
	}
	kept := s.Outputs()
	for _, o := range outputs {
		if !slices.Contains(kept, o) {
			return fmt.Sprintf("the injector that uses this state directory keeps %s, and not %s: give the other one an INJECTOR_STATE_DIR of its own",
				strings.Join(kept, ", "), o)
		}
	}
	return ""
}

func answer(w http.ResponseWriter, good bool, reason string) {
	if good {
		_, _ = io.WriteString(w, "ok\n")
		return
	}
	w.WriteHeader(http.StatusServiceUnavailable)
	_, _ = io.WriteString(w, reason+"\n")
}

// maxSocketPath is how long a Unix socket's path may be.
const maxSocketPath = 107

// Listen makes the socket in an open state directory. The caller holds the directory's lock, so
// a socket that is there is a dead agent's and is replaced.
func Listen(dir *os.Root, path string) (net.Listener, error) {
	if err := dir.Remove(SocketName); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	l, err := listenIn(dir, filepath.Join(path, SocketName))
	if err != nil {
		return nil, err
	}
	l.(*net.UnixListener).SetUnlinkOnClose(false) // the name may be gone by then; the next start replaces it
	return &socket{l, dir}, nil
}

// listenIn makes the socket in the directory that is open, whatever its path leads to by now. Without /proc only the
// path is left.
func listenIn(dir *os.Root, path string) (net.Listener, error) {
	d, err := dir.Open(".")
	if err != nil {
		return nil, err
	}
	defer func() { _ = d.Close() }()
	l, err := net.Listen("unix", viaDescriptor(d))
	if err != nil && len(path) <= maxSocketPath {
		return net.Listen("unix", path)
	}
	return l, err
}

// socket removes its file when it is closed.
type socket struct {
	net.Listener
	dir *os.Root
}

func (s *socket) Close() error {
	err := s.Listener.Close()
	if e := s.dir.Remove(SocketName); e != nil && !errors.Is(e, os.ErrNotExist) && !errors.Is(e, os.ErrClosed) {
		err = errors.Join(err, e)
	}
	return err
}

// viaDescriptor is a short path of the socket, for directories with a long one.
func viaDescriptor(dir *os.File) string {
	return fmt.Sprintf("/proc/self/fd/%d/%s", dir.Fd(), SocketName)
}
