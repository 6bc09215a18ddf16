package balena_test

import (
	"errors"
	"net/http"
	"testing"

	"github.com/balena-injector/injector/key"
	"github.com/balena-injector/injector/turn"
)

// outage makes the account take its server for unhealthy, and returns a turn that is to find out, once it comes.
func (m *many) outage(cost int) (*turn.Queue, *turn.Ticket) {
	q := m.account.Turns()
	for range 3 {
		q.Failed(errors.New("down"))
	}
	ticket, err := q.Wait(m.t.Context(), turn.Rescue, cost)
	if err != nil || !ticket.Probe() {
		m.t.Fatalf("no probe: %v", err)
	}
	return q, ticket
}

// TestProbesAsk has an outage that is over. Its probe comes from a key that cannot be part of a batch, or that is dead: it
// finds out all the same.
func TestProbesAsk(t *testing.T) {
	t.Run("batches are refused", func(t *testing.T) {
		t.Parallel()
		m := newMany(t, 3, nil)
		m.noErrors(m.each(t.Context(), find))
		m.behind(func(w http.ResponseWriter, r *http.Request) bool {
			refused := r.Method == http.MethodPatch && r.URL.RawQuery != ""
			if refused {
				w.WriteHeader(http.StatusBadRequest)
			}
			return refused
		})
		m.noErrors(m.each(t.Context(), extendTo(inAnHour())))
		q, probe := m.outage(0)
		defer probe.Done()
		if _, err := m.issuers[0].Extend(turn.With(t.Context(), probe), m.keys[0], inAnHour()); err != nil || q.Outage() != nil {
			t.Errorf("%v; it goes on: %v", err, q.Outage())
		}
	})
	t.Run("a key that was deleted", func(t *testing.T) {
		t.Parallel()
		m := newMany(t, 3, nil)
		m.noErrors(m.each(t.Context(), find))
		m.server.DeleteKey(m.keys[0].ID)
		q, probe := m.outage(1)
		defer probe.Done()
		if err := m.issuers[0].Verify(turn.With(t.Context(), probe), m.keys[0]); !key.Is(err, key.Gone) || q.Outage() != nil {
			t.Errorf("%v; it goes on: %v", err, q.Outage())
		}
	})
}
