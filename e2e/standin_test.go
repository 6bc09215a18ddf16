package e2e

import (
	"crypto/md5"
	"encoding/json"
	"fmt"
	"net/http"
	"testing"
	"time"
)

// standin is the stand-in for the API that a test runs in a container, asked by its routes for tests.
type standin struct {
	t       *testing.T
	address func() string // its host, seen from this machine
}

func (s *standin) url(path string) string {
	s.t.Helper()
	return "http://" + s.address() + ":8990" + path
}

type liveKey struct {
	ID     int64     `json:"id"`
	Name   string    `json:"name"`
	Expiry time.Time `json:"expiry"`
}

func (s *standin) get(path string, into any) {
	s.t.Helper()
	answer, err := http.Get(s.url(path))
	if err != nil {
		s.t.Fatal(err)
	}
	defer func() { _ = answer.Body.Close() }()
	if err := json.NewDecoder(answer.Body).Decode(into); err != nil {
		s.t.Fatal(err)
	}
}

func (s *standin) live() (keys []liveKey) {
	s.t.Helper()
	s.get("/standin/keys", &keys)
	return keys
}

// mints is how many keys were made in all.
func (s *standin) mints() int {
	s.t.Helper()
	var counts map[string]int
	s.get("/standin/requests", &counts)
	return counts["mint"]
}

func (s *standin) wantLive(n int) []liveKey {
	s.t.Helper()
	live := s.live()
	if len(live) != n {
		s.t.Fatalf("live keys: %v, want %d", live, n)
	}
	return live
}

// deleteKey is what somebody in the dashboard does.
func (s *standin) deleteKey(id int64) {
	s.t.Helper()
	r, _ := http.NewRequest(http.MethodDelete, s.url(fmt.Sprintf("/standin/keys/%d", id)), nil)
	answer, err := http.DefaultClient.Do(r)
	if err != nil || answer.StatusCode != http.StatusOK {
		s.t.Fatal("the key could not be deleted", err)
	}
	_ = answer.Body.Close()
}

// accepts asks the server for its verdict on a token.
func (s *standin) accepts(token string) bool {
	s.t.Helper()
	r, _ := http.NewRequest(http.MethodGet, s.url("/actor/v1/whoami"), nil)
	r.Header.Set("Authorization", "Bearer "+token)
	answer, err := http.DefaultClient.Do(r)
	if err != nil {
		s.t.Fatal(err)
	}
	_ = answer.Body.Close()
	return answer.StatusCode == http.StatusOK
}

func (s *standin) wantAccepted(token string) {
	s.t.Helper()
	if !s.accepts(token) {
		s.t.Fatal("the server refuses the app's token")
	}
}

// eventually waits until something is so.
func (s *standin) eventually(what string, within time.Duration, so func() bool) {
	s.t.Helper()
	for end := time.Now().Add(within); !so(); time.Sleep(100 * time.Millisecond) {
		if time.Now().After(end) {
			s.t.Fatalf("not within %v: %s", within, what)
		}
	}
}

func md5sum(s string) string { return fmt.Sprintf("%x", md5.Sum([]byte(s))) }
