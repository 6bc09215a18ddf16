package agent_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/balena-injector/injector/agent"
	"github.com/balena-injector/injector/balena/balenatest"
	"github.com/balena-injector/injector/key"
)

// effort counts what an agent asks of its surroundings until the first key is published.
type effort struct {
	agent.Publisher
	agent.Store
	published bool
	proofs    int
	saves     int
}

func (e *effort) Prove(ctx context.Context) error {
	e.proofs++
	return e.Publisher.Prove(ctx)
}

func (e *effort) Publish(ctx context.Context, p key.Publication) error {
	e.published = true
	return e.Publisher.Publish(ctx, p)
}

func (e *effort) Save(ctx context.Context, encode func(secrets bool) ([]byte, error)) error {
	if !e.published {
		e.saves++
	}
	return e.Store.Save(ctx, encode)
}

// Sweep is both's.
func (e *effort) Sweep(ctx context.Context) error { return e.Publisher.Sweep(ctx) }

// TestAStartAndAStopAreLight counts: outputs are proven once, the journal is written twice before the app has its file,
// the id is read after that, and the DELETE of a row that was read here is sent without another look.
func TestAStartAndAStopAreLight(t *testing.T) {
	inWorld(t, balenatest.Options{}, func(w *world) {
		var seen *effort
		w.around = func(p agent.Publisher, s agent.Store) (agent.Publisher, agent.Store) {
			seen = &effort{Publisher: p, Store: s}
			return seen, sweptStore{seen}
		}
		l := w.run()
		w.published(time.Second)
		w.sleep(time.Second)
		if seen.proofs != 1 || seen.saves != 2 {
			t.Errorf("%d proofs of the outputs, %d writes of the journal before the file was there", seen.proofs, seen.saves)
		}
		var kinds []string
		for _, r := range w.server.Requests() {
			kinds = append(kinds, r.Kind)
		}
		if fmt.Sprint(kinds) != "[login mint verify find]" {
			t.Errorf("requests: %v", kinds)
		}
		w.server.Forget()
		l.endWell()
		w.wantCounts(map[string]int{"revoke": 1, "find": 1})
	})
}

// sweptStore is the Store of an effort, whose Sweep has another form than a Publisher's.
type sweptStore struct{ *effort }

func (s sweptStore) Sweep() error { return s.Store.Sweep() }
