package balena_test

import (
	"sync"
	"testing"
	"time"

	"github.com/balena-injector/injector/balena"
	"github.com/balena-injector/injector/key"
	"github.com/balena-injector/injector/turn"
)

// TestAnUrgentBatchGoesFirst waits at a low rate together with batches that are not urgent: they keep no place from it.
func TestAnUrgentBatchGoesFirst(t *testing.T) {
	const batches = 8
	m := newMany(t, 2*batches+2, nil)
	m.noErrors(m.each(t.Context(), find))
	u := m.server.DefaultUser()
	account, err := balena.NewAccount(m.client, balena.AccountConfig{Keys: len(m.keys), PerMinute: 300,
		Credentials: balena.Credentials{Username: u.Name, Password: source(u.Password)}})
	if err != nil {
		t.Fatal(err)
	}
	for i := range m.issuers {
		m.issuers[i] = balena.NewIssuer(account, balena.IssuerConfig{Kind: key.User, Prefix: "test"})
	}
	if _, _, err := m.issuers[0].Identify(t.Context()); err != nil {
		t.Fatal(err)
	}
	q := account.Turns()
	for range 140 { // the burst is used up
		q.Sent(t.Context())
	}
	extend := func(i int, urgency turn.Urgency, later time.Duration) error {
		ctx := turn.With(t.Context(), q.Ask(urgency, 0, nil))
		_, err := m.issuers[i].Extend(ctx, m.keys[i], inAnHour().Add(later))
		return err
	}
	var others, urgent sync.WaitGroup
	for i := range 2 * batches { // pairs whose expiries are too far apart for one request
		others.Go(func() {
			if err := extend(i, turn.Keep, time.Duration(i/2)*time.Minute); err != nil {
				t.Error(err)
			}
		})
	}
	time.Sleep(300 * time.Millisecond)
	began := time.Now()
	for i := 2 * batches; i < len(m.keys); i++ {
		urgent.Go(func() {
			if err := extend(i, turn.Rescue, time.Hour); err != nil {
				t.Error(err)
			}
		})
	}
	urgent.Wait()
	took := time.Since(began)
	others.Wait()
	if all := time.Since(began); took > all/2 {
		t.Errorf("it took %v, and all of them %v", took, all)
	}
}
