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
	"time"

	"golang.org/x/sync/errgroup"
)

// SocketName is the socket's name in the state directory.
const SocketName = "injector.sock"

// Server answers. All fields are required.
type Server struct {
	Report  func() Report
	Alive   func() bool // whether the main loop makes progress
	Metrics func(io.Writer)
	// Ask does what a person asks for through the socket: "handover", "no-handover" or "reread".
	Ask func(what string) (answer string, err error)

	patience patience
}

// Serve answers on the listeners until ctx is done.
func (s *Server) Serve(ctx context.Context, socket, tcp net.Listener) error {
	group, ctx := errgroup.WithContext(ctx)
	serve := func(l net.Listener, h http.Handler) {
		if l == nil {
			return
		}
		srv := &http.Server{Handler: h, ReadHeaderTimeout: 5 * time.Second, WriteTimeout: writeTimeout, IdleTimeout: 10 * time.Second,
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

// writeTimeout is how long an answer may take; one that is held takes longer.
const writeTimeout = 10 * time.Second

func (s *Server) public() *http.ServeMux {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /livez", func(w http.ResponseWriter, _ *http.Request) {
		if s.Alive() {
			answer(w, true, "alive")
			return
		}
		answer(w, false, "the main loop makes no progress")
	})
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) { s.ready(w, nil) })
	mux.HandleFunc("GET /metrics", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
		s.Metrics(w)
	})
	return mux
}

// private is what the owner of the state directory may ask, beyond public.
func (s *Server) private() *http.ServeMux {
	mux := http.NewServeMux()
	mux.Handle("/", s.public())
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, r *http.Request) {
		outputs := r.URL.Query()["output"]
		if hold, err := time.ParseDuration(r.URL.Query().Get("hold")); err == nil {
			hold = min(hold, MaxHold)
			_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(hold + writeTimeout))
			s.patience.wait(r.Context(), hold, func() bool { return s.Report().For(outputs).Ready })
		}
		s.ready(w, outputs)
	})
	mux.HandleFunc("POST /ask/{what}", func(w http.ResponseWriter, r *http.Request) {
		text, err := s.Ask(r.PathValue("what"))
		if err != nil {
			answer(w, false, err.Error())
			return
		}
		answer(w, true, text)
	})
	mux.HandleFunc("GET /status", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(s.Report().For(r.URL.Query()["output"]))
	})
	return mux
}

func (s *Server) ready(w http.ResponseWriter, outputs []string) {
	r := s.Report().For(outputs)
	answer(w, r.Ready, r.Line(time.Now()))
}

func answer(w http.ResponseWriter, good bool, text string) {
	if !good {
		w.WriteHeader(http.StatusServiceUnavailable)
	}
	_, _ = io.WriteString(w, text+"\n")
}

// maxSocketPath is how long a Unix socket's path may be.
const maxSocketPath = 107

// CheckSocket reports what would keep Listen from making the socket: something of its name that cannot be removed.
func CheckSocket(dir string) error {
	info, err := os.Lstat(filepath.Join(dir, SocketName))
	if err == nil && info.IsDir() {
		return fmt.Errorf("%s is a directory: remove it", filepath.Join(dir, SocketName))
	}
	return nil
}

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
