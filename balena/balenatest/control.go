package balenatest

import (
	"encoding/json"
	"net/http"
	"strconv"
	"time"
)

// WithControl serves s together with a few routes, below /standin/, that the real API does not
// have: for programs that use the stand-in from outside, such as the demo.
//
//	GET    /standin/keys        all live keys, without their secrets
//	DELETE /standin/keys/ID     delete a key, as somebody in the dashboard would
//	GET    /standin/requests    how many requests of each kind were seen
//	POST   /standin/down?on=1   take the database away (on=0 gives it back)
//	POST   /standin/away?on=1   break every connection (on=0 ends that)
func (s *Server) WithControl() http.Handler {
	mux := http.NewServeMux()
	mux.Handle("/", s)
	mux.HandleFunc("GET /standin/keys", func(w http.ResponseWriter, _ *http.Request) { writeJSON(w, s.liveList()) })
	mux.HandleFunc("GET /standin/requests", func(w http.ResponseWriter, _ *http.Request) { writeJSON(w, s.Counts()) })
	mux.HandleFunc("DELETE /standin/keys/{id}", func(w http.ResponseWriter, r *http.Request) {
		id, err := strconv.ParseInt(r.PathValue("id"), 10, 64)
		if err != nil || !s.DeleteKey(id) {
			w.WriteHeader(http.StatusNotFound)
		}
	})
	mux.HandleFunc("POST /standin/down", func(_ http.ResponseWriter, r *http.Request) { s.SetDown(r.URL.Query().Get("on") == "1") })
	mux.HandleFunc("POST /standin/away", func(_ http.ResponseWriter, r *http.Request) { s.SetRestarting(r.URL.Query().Get("on") == "1") })
	return mux
}

// LiveKey is a live key as /standin/keys shows it.
type LiveKey struct {
	ID     int64     `json:"id"`
	Name   string    `json:"name"`
	Kind   string    `json:"kind"`
	Expiry time.Time `json:"expiry"`
}

func (s *Server) liveList() []LiveKey {
	list := []LiveKey{}
	for _, k := range s.Live() {
		list = append(list, LiveKey{k.ID, k.Name, string(k.Kind), k.Expiry})
	}
	return list
}

func writeJSON(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(v)
}
