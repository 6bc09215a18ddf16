package balena_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/balena-injector/injector/balena"
	"github.com/balena-injector/injector/key"
)

// counted is a balena.Keeper that remembers what it was told.
type counted struct {
	mu      sync.Mutex
	key     key.Key
	sighted []key.Key
	doubts  int
}

func (c *counted) Holds() (key.Key, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.key, c.key.Name != ""
}

func (c *counted) Sighted(k key.Key, since time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if time.Since(since) > time.Minute || since.IsZero() {
		panic("when a list was asked for")
	}
	c.sighted = append(c.sighted, k)
}

func (c *counted) Doubt(bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.doubts++
}

// census takes one census of m's keys, and returns how many keepers saw theirs, and how many doubt.
func (m *many) census() (counts []*counted, seen, doubts int) {
	m.t.Helper()
	var keepers []balena.Keeper
	for _, k := range m.keys {
		c := &counted{key: k}
		counts, keepers = append(counts, c), append(keepers, c)
	}
	census := balena.NewCensus(m.account, time.Hour, keepers)
	ctx, cancel := context.WithCancel(m.t.Context())
	done := make(chan struct{})
	go func() { defer close(done); census.Run(ctx) }()
	census.Ask()
	time.Sleep(1500 * time.Millisecond) // it waits for others who ask
	cancel()
	<-done
	for _, c := range counts {
		if len(c.sighted) > 0 {
			seen++
		}
		doubts += c.doubts
	}
	return counts, seen, doubts
}

func TestACensusSeesAllKeys(t *testing.T) {
	t.Parallel()
	m := newMany(t, 40, nil)
	m.noErrors(m.each(t.Context(), find))
	later := inAnHour()
	m.noErrors(m.each(t.Context(), extendTo(later))) // which the keepers do not know of
	m.requests()
	counts, seen, doubts := m.census()
	if got := m.requests(); seen != 40 || doubts != 3 || got["list"] != 2 || got["all"] != 2 {
		t.Errorf("%d of 40 seen, %d asked for themselves, with %v", seen, doubts, got)
	}
	for _, c := range counts {
		if k := c.sighted[0]; k.ID == 0 || !k.Seen || !k.Expiry.Equal(later) || !k.Secret.Equal(c.key.Secret) {
			t.Fatalf("seen as %+v", k)
		}
	}
}

// TestACensusConvictsNobody: who is not listed is asked, unless the list is found to be wrong.
func TestACensusConvictsNobody(t *testing.T) {
	t.Parallel()
	t.Run("two are gone", func(t *testing.T) {
		m := newMany(t, 40, nil)
		m.noErrors(m.each(t.Context(), find))
		for _, k := range m.keys[:2] {
			m.server.DeleteKey(k.ID)
		}
		counts, seen, doubts := m.census()
		if seen != 38 || doubts < 3 || counts[0].doubts == 0 || counts[1].doubts == 0 {
			t.Errorf("%d seen, %d doubts, of the missing %d and %d", seen, doubts, counts[0].doubts, counts[1].doubts)
		}
	})
	t.Run("half is gone", func(t *testing.T) {
		m := newMany(t, 40, nil)
		m.noErrors(m.each(t.Context(), find))
		for _, k := range m.keys[:20] {
			m.server.DeleteKey(k.ID)
		}
		counts, seen, _ := m.census()
		missing := 0
		for _, c := range counts[:20] {
			missing += min(1, c.doubts)
		}
		if seen != 20 || missing != 20 {
			t.Errorf("%d seen, %d of the missing are to be asked", seen, missing)
		}
	})
	t.Run("half is not listed", func(t *testing.T) {
		m := newMany(t, 40, nil)
		m.noErrors(m.each(t.Context(), find))
		m.requests()
		m.behind(func(w http.ResponseWriter, r *http.Request) bool {
			if strings.Contains(r.URL.RawQuery, "id%20gt") { // the list begins in the middle
				r.URL.RawQuery = strings.Replace(r.URL.RawQuery, "id%20gt%200&", fmt.Sprintf("id%%20gt%%20%d&", m.keys[19].ID), 1)
			}
			return false
		})
		_, seen, doubts := m.census()
		if got := m.requests(); seen != 20 || doubts > 3 || got["verify"] != 1 {
			t.Errorf("%d seen, %d doubts, with %v", seen, doubts, got)
		}
		if n := strings.Count(m.log.String(), "its list says nothing"); n != 1 {
			t.Errorf("said %d times", n)
		}
	})
	t.Run("somebody else's of our name", func(t *testing.T) {
		m := newMany(t, 12, nil)
		m.server.DeleteKey(m.server.Live()[0].ID)
		m.server.ShiftClock(3 * time.Minute)
		m.server.AddKey(m.server.DefaultUser(), m.keys[0].Name, inAnHour())
		counts, seen, _ := m.census()
		if seen != 11 || counts[0].doubts == 0 {
			t.Errorf("%d seen, %d doubts of the one that was replaced", seen, counts[0].doubts)
		}
	})
}

// TestFewKeysAreNotListed, nor those whose names begin like thousands of others.
func TestFewKeysAreNotListed(t *testing.T) {
	t.Parallel()
	m := newMany(t, 9, nil)
	if _, seen, _ := m.census(); seen != 0 || m.requests()["list"] != 0 {
		t.Errorf("%d of 9 are seen in a list", seen)
	}
	m = newMany(t, 12, nil)
	for n := range 5000 {
		m.server.AddKey(m.server.DefaultUser(), fmt.Sprintf("test-another-%d", n), time.Time{})
	}
	_, seen, _ := m.census()
	if got := m.requests(); seen != 0 || got["list"] != 4 {
		t.Errorf("%d seen, with %v", seen, got)
	}
	if n := strings.Count(m.log.String(), "many other keys whose names begin alike"); n != 1 {
		t.Errorf("said %d times", n)
	}
}

// TestALateExtensionShortensNothing: a request that arrives once more, later than another one.
func TestALateExtensionShortensNothing(t *testing.T) {
	m := newMany(t, 20, nil)
	m.noErrors(m.each(t.Context(), find))
	var late *http.Request
	var body []byte
	m.behind(func(_ http.ResponseWriter, r *http.Request) bool {
		if r.Method == http.MethodPatch && late == nil {
			body, _ = io.ReadAll(r.Body)
			late = r.Clone(context.Background())
			r.Body = io.NopCloser(bytes.NewReader(body))
		}
		return false
	})
	first := inAnHour()
	m.noErrors(m.each(t.Context(), extendTo(first)))
	m.noErrors(m.each(t.Context(), extendTo(first.Add(time.Hour))))
	late.Body = io.NopCloser(bytes.NewReader(body))
	m.server.ServeHTTP(httptest.NewRecorder(), late)
	for _, k := range m.server.Live() {
		if key.Named("test", k.Name) && !k.Expiry.Equal(first.Add(time.Hour)) {
			t.Fatalf("%s expires %v", k.Name, k.Expiry)
		}
	}
	m.foreigners(20)
}

// TestAForgedIDIsNotChanged: a journal names a stranger's row as ours.
func TestAForgedIDIsNotChanged(t *testing.T) {
	m := newMany(t, 20, nil)
	m.noErrors(m.each(t.Context(), find))
	victim := m.foreign[0]
	m.keys[0].ID, m.keys[0].Seen = victim.ID, false
	m.noErrors(m.each(t.Context(), extendTo(inAnHour())))
	m.noErrors(m.each(t.Context(), revoke))
	m.foreigners(0)
}
