package agent_test

import (
	"cmp"
	"context"
	"errors"
	"os"
	"sync/atomic"
	"testing"
	"time"

	"github.com/balena-injector/injector/agent"
	"github.com/balena-injector/injector/balena/balenatest"
	"github.com/balena-injector/injector/key"
)

// cutOff ends a life between the file of the second generation and the journal that says so, as a crash does.
type cutOff struct {
	agent.Publisher
	agent.Store
	life func() *life
	dead bool
}

var errCutOff = errors.New("the process was killed")

func (c *cutOff) Publish(ctx context.Context, p key.Publication) error {
	err := c.Publisher.Publish(ctx, p)
	if p.Generation == 2 {
		c.dead = true
		c.life().stop(agent.ErrHandOver)
		c.life().kill()
	}
	return err
}

func (c *cutOff) Save(ctx context.Context, encode func(secrets bool) ([]byte, error)) error {
	if c.dead {
		return errCutOff
	}
	return c.Store.Save(ctx, encode)
}

// Sweep is the Publisher's.
func (c *cutOff) Sweep(ctx context.Context) error { return c.Publisher.Sweep(ctx) }

// cutOffStore is the Store of a cutOff.
type cutOffStore struct{ *cutOff }

func (c cutOffStore) Sweep() error { return c.Store.Sweep() }

// TestAPublicationThatWasCutOff is followed by the deletion of its key: the file that shows it is written again, and so is
// one that somebody removes later.
func TestAPublicationThatWasCutOff(t *testing.T) {
	inWorld(t, balenatest.Options{}, func(w *world) {
		var l *life
		w.times.MaxTTL = time.Hour
		w.around = func(p agent.Publisher, s agent.Store) (agent.Publisher, agent.Store) {
			c := &cutOff{Publisher: p, Store: s, life: func() *life { return l }}
			return c, cutOffStore{c}
		}
		l = w.run()
		first := w.published(time.Minute)
		for w.read() == first {
			w.sleep(time.Second)
		}
		_ = l.wait() // it was killed, and may say so
		for _, k := range w.server.Live() {
			if k.Secret == w.read() {
				w.server.DeleteKey(k.ID)
			}
		}
		w.around, w.times.MaxTTL = nil, 24*time.Hour
		l = w.run()
		w.sleep(3 * time.Minute)
		w.wantGood()
		if err := os.Remove(w.token()); err != nil {
			t.Fatal(err)
		}
		w.sleep(31 * time.Second)
		w.wantGood()
		l.wantReady(true)
		l.endWell()
	})
}

// noRoom is a Publisher that has room for what is there, and for no other key.
type noRoom struct{ agent.Publisher }

func (noRoom) Prove(context.Context) error { return errors.New("no room") }

// TestAnAdoptedKeyIsAnnouncedBeforeItIsReliedOn has one that the server refuses for a while and lists, and no room for
// another one: what waits for it gets its token.
func TestAnAdoptedKeyIsAnnouncedBeforeItIsReliedOn(t *testing.T) {
	inWorld(t, balenatest.Options{}, func(w *world) {
		l := w.run()
		w.published(time.Minute)
		w.sleep(time.Minute)
		l.handOver()
		w.server.Fail(balenatest.Fault{Kind: "verify", Status: 401, Body: "Unauthorized", For: 100 * time.Second})
		announced, ready := false, false
		w.announce = func(key.Publication, bool) { announced = true }
		w.proven = time.Now()
		w.around = func(p agent.Publisher, s agent.Store) (agent.Publisher, agent.Store) { return noRoom{p}, s }
		w.initTime = 10 * time.Minute
		l = w.begin(func(a *agent.Agent, stop, kill context.Context) error {
			return a.Supervise(stop, kill, func() {
				if ready = true; !announced {
					t.Error("it is relied on, and its token was not announced")
				}
			})
		})
		w.sleep(6 * time.Minute)
		if !ready {
			t.Error("it was never relied on")
		}
		w.server.Heal()
		l.endWell()
	})
}

// TestAnAcknowledgementThatComesWithTheStop is in the journal of the next start.
func TestAnAcknowledgementThatComesWithTheStop(t *testing.T) {
	inWorld(t, balenatest.Options{}, func(w *world) {
		l := w.run()
		w.published(time.Minute)
		w.sleep(time.Minute)
		l.stop(agent.ErrHandOver)
		l.agent.Acknowledge(1)
		if err := l.wait(); err != nil {
			t.Fatal(err)
		}
		w.announce = func(_ key.Publication, news bool) {
			if news {
				t.Error("it is announced as news")
			}
		}
		l = w.run()
		w.sleep(time.Minute)
		l.endWell()
	})
}

// fullDisk is a publisher whose writes fail from a moment on, of which a proof before says nothing.
type fullDisk struct {
	agent.Publisher
	full *atomic.Bool
}

var errFull = errors.New("no space left on device")

func (d fullDisk) check() error {
	if d.full.Load() {
		return errFull
	}
	return nil
}

func (d fullDisk) Prove(ctx context.Context) error {
	return errors.Join(d.check(), d.Publisher.Prove(ctx))
}

func (d fullDisk) Publish(ctx context.Context, p key.Publication) error {
	return cmp.Or(d.check(), d.Publisher.Publish(ctx, p))
}

func (d fullDisk) Describe(ctx context.Context, p key.Publication) error {
	return cmp.Or(d.check(), d.Publisher.Describe(ctx, p))
}

// TestAFailedWriteEndsTheProof that outputs can be written: a key that dies a moment later is not followed by one that
// cannot be published.
func TestAFailedWriteEndsTheProof(t *testing.T) {
	inWorld(t, balenatest.Options{}, func(w *world) {
		full := &atomic.Bool{}
		w.around = func(p agent.Publisher, s agent.Store) (agent.Publisher, agent.Store) { return fullDisk{p, full}, s }
		w.times.Check = time.Second
		w.proven = time.Now()
		l := w.run()
		w.published(time.Second)
		full.Store(true)
		l.agent.Renew() // the new expiry cannot be written beside the token
		w.sleep(500 * time.Millisecond)
		w.server.DeleteKey(w.server.Live()[0].ID)
		w.sleep(3 * time.Second)
		w.wantLog("no space left on device")
		if n := w.server.Count("mint"); n != 1 {
			t.Errorf("%d mints", n)
		}
		full.Store(false)
		w.sleep(2 * time.Minute)
		w.wantGood()
		l.endWell()
	})
}
