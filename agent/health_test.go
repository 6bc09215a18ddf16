package agent

import (
	"bytes"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"
)

// everyHealth lists them.
func everyHealth() []health {
	list := []health{}
	for h := range healthNames {
		list = append(list, health(h))
	}
	return list
}

// logged is an agent that writes its log into a buffer.
func logged() (*Agent, *bytes.Buffer) {
	var log bytes.Buffer
	a := New(Config{Log: slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))})
	return a, &log
}

// TestEachChangeOfHealthIsInTheTable makes every change from every health in every state: what is not in the tables is an
// error in the log, and what is in them is said with its reason.
func TestEachChangeOfHealthIsInTheTable(t *testing.T) {
	for s, healths := range possible {
		for _, from := range healths {
			for _, to := range everyHealth() {
				a, log := logged()
				h := &holding{rec: record{Name: "test-0", State: s, Expiry: time.Now()}, health: from}
				a.become(h, to, "a reason")
				allowed := from == to || slices.Contains(changes[from], to) && slices.Contains(healths, to)
				if mistake := strings.Contains(log.String(), mistaken); mistake == allowed {
					t.Errorf("%s, from %v to %v: in the log: %s", s, from, to, log)
				}
				if said := strings.Contains(log.String(), "a reason"); said == (from == to) {
					t.Errorf("%s, from %v to %v: in the log: %s", s, from, to, log)
				}
				if h.health != to {
					t.Errorf("from %v to %v: it is %v", from, to, h.health)
				}
			}
		}
	}
}

// TestHealthsThatEnd are those from which no key comes back, whatever the server answers later.
func TestHealthsThatEnd(t *testing.T) {
	for _, h := range everyHealth() {
		final := h == deadUnlistable || h == deadGone || h == ended
		if back := slices.ContainsFunc(changes[h], func(to health) bool { return to != ended }); back == final {
			t.Errorf("%v: %v", h, changes[h])
		}
		if _, ok := changes[h]; !ok || h.String() == "" {
			t.Errorf("%d has no row or no name", h)
		}
	}
}

// TestADeadKeyIsNotUnproven by what an extension of it finds.
func TestADeadKeyIsNotUnproven(t *testing.T) {
	for _, from := range everyHealth() {
		a, log := logged()
		h := &holding{rec: record{Name: "test-0", State: published, Expiry: time.Now()}, health: from}
		if from == ended {
			continue // nobody extends it
		}
		a.unprove(h, "it was not found")
		if from.dead() != (h.health == from && from != unproven) || strings.Contains(log.String(), mistaken) {
			t.Errorf("from %v to %v: %s", from, h.health, log)
		}
	}
}

// TestWhatIsGoneIsNotRevoked puts keys of each health aside: only what is gone for certain leaves the journal.
func TestWhatIsGoneIsNotRevoked(t *testing.T) {
	for _, kept := range everyHealth() {
		a, _ := logged()
		h := &holding{rec: record{Name: "test-0", State: published}, health: kept}
		a.current = h
		a.retire(h, time.Minute)
		if a.current != nil || (len(a.retiring) == 0) != (kept == deadGone) {
			t.Errorf("%v: current %v, retiring %v", kept, a.current, a.retiring)
		}
	}
}
