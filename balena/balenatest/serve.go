package balenatest

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"time"
)

// ServeHTTP answers one request, or lets it go wrong.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(io.LimitReader(r.Body, 1<<20))
	r.URL.Path = strings.TrimSuffix(r.URL.Path, "/")
	kind := kindOf(r, body)
	s.mu.Lock()
	away := s.away
	s.mu.Unlock()
	if away {
		s.cut(w, kind, r)
		return
	}
	bearer := r.Header.Get("Authorization")
	s.remember(bearer)
	if answer, over := s.overLimit(); over {
		s.send(w, r, kind, answer, nil)
		return
	}
	f := s.faultFor(kind, Match{Method: r.Method, Path: r.URL.Path, Session: strings.Count(bearer, ".") == 2,
		Several: strings.Contains(r.URL.RawQuery, "%20in%20(")})
	if f == nil {
		s.send(w, r, kind, s.effect(r, body), nil)
		return
	}
	s.misbehave(w, r, kind, body, f)
}

// reply is an answer before it is sent.
type reply struct {
	status int
	header http.Header
	body   []byte
}

// effect lets a request take effect and returns its proper answer.
func (s *Server) effect(r *http.Request, body []byte) reply {
	rec := httptest.NewRecorder()
	again := r.Clone(r.Context())
	again.Body = io.NopCloser(bytes.NewReader(body))
	s.mux.ServeHTTP(rec, again)
	return reply{rec.Code, rec.Header(), rec.Body.Bytes()}
}

func (s *Server) misbehave(w http.ResponseWriter, r *http.Request, kind string, body []byte, f *Fault) {
	proper := reply{status: http.StatusOK, header: http.Header{}}
	if f.Half || f.Unfiltered {
		s.send(w, r, kind, s.effect(mangled(r, f), body), f)
		return
	}
	switch {
	case f.After:
		proper = s.effect(r, body)
	case f.Late > 0:
		s.pending.Add(1)
		clone := r.Clone(r.Context())
		time.AfterFunc(f.Late, func() { defer s.pending.Done(); s.effect(clone, body) })
	}
	if f.Hang {
		s.note(kind, r, 0)
		<-r.Context().Done()
		panic(http.ErrAbortHandler)
	}
	if f.Delay > 0 {
		select {
		case <-time.After(f.Delay):
		case <-r.Context().Done():
			s.note(kind, r, 0)
			panic(http.ErrAbortHandler)
		}
	}
	switch {
	case f.Pass && (f.After || f.Late > 0):
		s.send(w, r, kind, proper, f)
	case f.Pass && (f.Delay > 0 || f.Slow > 0 || f.Cut > 0):
		s.send(w, r, kind, s.effect(r, body), f)
	case f.Pass:
		s.send(w, r, kind, proper, f)
	case f.Hollow:
		s.send(w, r, kind, hollow(kind, r, body), f)
	case f.Status == 0:
		s.cut(w, kind, r)
	default:
		header := f.Header.Clone()
		if header == nil {
			header = http.Header{}
		}
		if f.Later > 0 {
			s.mu.Lock()
			header.Set("Retry-After", s.now().Add(f.Later).UTC().Format(http.TimeFormat))
			s.mu.Unlock()
		}
		answer := []byte(f.Body)
		if f.Echo {
			answer = append(append(append(answer, " "+r.Header.Get("Authorization")+" "...), body...), ' ')
		}
		s.send(w, r, kind, reply{f.Status, header, answer}, f)
	}
}

// mangled is the request as a proxy passes it on that loses its query, or half of a list in it.
func mangled(r *http.Request, f *Fault) *http.Request {
	r = r.Clone(r.Context())
	if f.Unfiltered {
		r.URL.RawQuery = ""
		return r
	}
	query, err := url.PathUnescape(r.URL.RawQuery)
	before, rest, found := strings.Cut(query, " in (")
	list, after, closed := strings.Cut(rest, ")")
	if err == nil && found && closed {
		items := strings.Split(list, ",")
		query = before + " in (" + strings.Join(items[:(len(items)+1)/2], ",") + ")" + after
		r.URL.RawQuery = strings.ReplaceAll(query, " ", "%20")
	}
	return r
}

// hollow is the answer of a request that did nothing: a mint returns the secret that it was sent, a list is empty, a
// session is what it was before; to a PATCH or DELETE the proper answer has no body anyhow.
func hollow(kind string, r *http.Request, body []byte) reply {
	answer := reply{status: http.StatusOK, header: http.Header{}}
	switch kind {
	case "mint":
		var sent struct {
			APIKey string `json:"apiKey"`
		}
		_ = json.Unmarshal(body, &sent)
		answer.body, _ = json.Marshal(sent.APIKey)
	case "find":
		answer.body = []byte(`{"d":[]}`)
	case "refresh", "fresh":
		answer.body = []byte(strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer "))
	}
	return answer
}

func (s *Server) send(w http.ResponseWriter, r *http.Request, kind string, a reply, f *Fault) {
	s.note(kind, r, a.status)
	maps.Copy(w.Header(), a.header)
	s.mu.Lock()
	if w.Header().Get("Date") == "" { // a gateway has a clock of its own
		w.Header().Set("Date", s.now().UTC().Format(http.TimeFormat))
	}
	s.mu.Unlock()
	if f != nil && f.Cut > 0 {
		w.Header().Set("Content-Length", fmt.Sprint(len(a.body)+f.Cut))
		w.WriteHeader(a.status)
		_, _ = w.Write(a.body[:min(f.Cut, len(a.body))])
		_ = http.NewResponseController(w).Flush()
		panic(http.ErrAbortHandler)
	}
	if w.Header().Get("Content-Length") == "" {
		w.Header().Set("Content-Length", fmt.Sprint(len(a.body)))
	}
	w.WriteHeader(a.status)
	if f != nil && f.Slow > 0 {
		drip(w, r, a.body, f.Slow)
		return
	}
	_, _ = w.Write(a.body)
}

func drip(w http.ResponseWriter, r *http.Request, body []byte, pause time.Duration) {
	for i := range body {
		select {
		case <-time.After(pause):
		case <-r.Context().Done():
			return
		}
		_, _ = w.Write(body[i : i+1])
		_ = http.NewResponseController(w).Flush()
	}
}

// cut closes the connection without an answer.
func (s *Server) cut(w http.ResponseWriter, kind string, r *http.Request) {
	s.note(kind, r, 0)
	conn, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	if tcp, ok := conn.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0) // a reset, not an orderly end
	}
	_ = conn.Close()
}

func (s *Server) note(kind string, r *http.Request, status int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.seen = append(s.seen, Request{At: time.Now(), Kind: kind, Method: r.Method, Path: r.URL.Path, URI: r.RequestURI,
		Status: status, Client: r.UserAgent()})
}

// kindOf names a request as balena.Kinds does.
func kindOf(r *http.Request, body []byte) string {
	path, reading := r.URL.Path, r.Method == http.MethodGet
	keys := strings.HasPrefix(path, "/v7/api_key") || strings.HasPrefix(path, "/v6/api_key")
	switch {
	case path == "/login_":
		return "login"
	case path == "/auth/totp/verify":
		return "totp"
	case path == "/user/v1/refresh-token" && bytes.Contains(body, []byte("password")):
		return "fresh"
	case path == "/user/v1/refresh-token":
		return "refresh"
	case path == "/user/v1/whoami":
		return "whoami"
	case path == "/actor/v1/whoami":
		return "verify"
	case path == "/v7/device_type":
		return "health"
	case path == "/v7/application" || path == "/v7/device":
		return "lookup"
	case strings.HasPrefix(path, "/api-key/"):
		return "mint"
	case keys && reading && strings.Contains(r.URL.RawQuery, "startswith"):
		return "list"
	case keys && reading:
		return "find"
	case keys && r.Method == http.MethodPatch:
		return "extend"
	case keys && r.Method == http.MethodDelete:
		return "revoke"
	}
	return "other"
}
