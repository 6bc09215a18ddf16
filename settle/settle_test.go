package settle_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/balena-injector/injector/key"
	"github.com/balena-injector/injector/settle"
)

// failure is an error of a class.
type failure key.Class

func (f failure) Error() string             { return key.Class(f).String() }
func (f failure) FailureClass() key.Class   { return key.Class(f) }
func (f failure) RetryAfter() time.Duration { return 0 }

// script is an Issuer that answers as it is told, the last answer again and again. A nil error is success.
type script struct {
	mints, finds []error
	existed      bool // what a mint that succeeds says
	sent, asked  int
}

func (s *script) Mint(_ context.Context, k key.Key) (key.Key, bool, error) {
	err := s.mints[min(s.sent, len(s.mints)-1)]
	s.sent++
	return k, s.existed && err == nil, err
}

func (s *script) Find(_ context.Context, k key.Key) (key.Key, error) {
	err := s.finds[min(s.asked, len(s.finds)-1)]
	s.asked++
	if err == nil {
		k.ID, k.Seen = 7, true
	}
	return k, err
}

func draft(kind key.Kind) key.Key { return key.Draft("test", kind, 1, time.Now().Add(time.Hour)) }

// TestSettle follows mints to their fate: what Settle returns says whether a key may exist.
func TestSettle(t *testing.T) {
	for name, c := range map[string]struct {
		kind      key.Kind
		script    script
		made      bool      // the key exists
		unsettled bool      // it may exist
		class     key.Class // of the error
		takes     time.Duration
	}{
		"an answer at once": {
			script: script{mints: []error{nil}},
			made:   true,
		},
		"a lost answer": {
			script: script{mints: []error{failure(key.Ambiguous), nil}, existed: true},
			made:   true,
			takes:  time.Second,
		},
		"an outage that ends": {
			script: script{mints: []error{failure(key.Outage), failure(key.Busy), failure(key.Unknown), nil}},
			made:   true,
			takes:  10 * time.Second,
		},
		"a refusal": {
			script: script{mints: []error{failure(key.Refused)}},
			class:  key.Refused,
		},
		"an outage that does not end": {
			script: script{mints: []error{failure(key.Outage)}},
			class:  key.Outage,
			takes:  time.Minute,
		},
		"a lost answer and an outage that does not end": {
			script:    script{mints: []error{failure(key.Ambiguous), failure(key.Outage)}},
			unsettled: true,
			class:     key.Outage,
			takes:     time.Minute,
		},
		"a lost answer and a refusal, and the key is there": {
			script: script{mints: []error{failure(key.Ambiguous), failure(key.FreshLogin)}, finds: []error{failure(key.Outage), nil}},
			made:   true,
			takes:  2 * time.Second,
		},
		"a lost answer and a refusal, and the key never came to be": {
			script: script{mints: []error{failure(key.Ambiguous), failure(key.FreshLogin)}, finds: []error{failure(key.Gone)}},
			class:  key.FreshLogin,
			takes:  settle.Pause + time.Second,
		},
		"a lost answer and a refusal, and such keys may not be listed": {
			kind:      key.Fleet,
			script:    script{mints: []error{failure(key.Ambiguous), failure(key.Wrong)}, finds: []error{failure(key.Gone)}},
			unsettled: true,
			class:     key.Unrevocable,
			takes:     settle.Pause + time.Second,
		},
		"a lost answer and a refusal, and no look until the end": {
			script:    script{mints: []error{failure(key.Ambiguous), failure(key.Wrong)}, finds: []error{failure(key.Outage)}},
			unsettled: true,
			class:     key.Outage,
			takes:     time.Minute,
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
				defer cancel()
				if c.kind == "" {
					c.kind = key.User
				}
				began := time.Now()
				k, err := settle.Settle(ctx, &c.script, draft(c.kind))
				class, _ := key.ClassOf(err)
				if (err == nil) != c.made || class != c.class || errors.Is(err, settle.ErrUnsettled) != c.unsettled {
					t.Errorf("%v, of class %v", err, class)
				}
				if c.made && c.script.asked > 0 && k.ID != 7 {
					t.Errorf("the key that was found has the id %d", k.ID)
				}
				if took := time.Since(began); took > c.takes {
					t.Errorf("it took %v", took)
				}
			})
		})
	}
}

// TestWhatWasCutOffIsDoubted for as long as it may still take effect, unless the server has said that it did.
func TestWhatWasCutOffIsDoubted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &script{mints: []error{failure(key.Ambiguous), nil}}
		var m settle.Mint
		if m.Sent() || m.Doubt() != 0 {
			t.Error("nothing was sent, and it is doubted")
		}
		if _, err := m.Send(t.Context(), s, draft(key.User)); err == nil || !m.Sent() || m.Doubt() != settle.Pause {
			t.Errorf("%v; sent %v, in doubt for %v", err, m.Sent(), m.Doubt())
		}
		time.Sleep(2 * time.Second)
		if _, err := m.Send(t.Context(), s, draft(key.User)); err != nil || m.Existed() || m.Doubt() != settle.Pause-2*time.Second {
			t.Errorf("%v; existed %v, in doubt for %v", err, m.Existed(), m.Doubt())
		}
		s.existed = true
		if _, err := m.Send(t.Context(), s, draft(key.User)); err != nil || !m.Existed() || m.Doubt() != 0 {
			t.Errorf("%v; existed %v, in doubt for %v", err, m.Existed(), m.Doubt())
		}
		time.Sleep(settle.Pause)
		earlier, made := settle.Earlier(), settle.Made()
		if !earlier.Sent() || earlier.Doubt() != settle.Pause || !made.Sent() || made.Doubt() != 0 {
			t.Errorf("of an earlier process: %+v, %+v", earlier, made)
		}
	})
}

// TestAFailureThatPromisesThatNothingWasSent leaves a mint unsent.
func TestAFailureThatPromisesThatNothingWasSent(t *testing.T) {
	for _, class := range []key.Class{key.Outage, key.Busy, key.Gone, key.FreshLogin, key.Refused, key.Wrong, key.Unrevocable} {
		var m settle.Mint
		if _, err := m.Send(t.Context(), &script{mints: []error{failure(class)}}, draft(key.User)); err == nil || m.Sent() {
			t.Errorf("%v: %v, sent %v", class, err, m.Sent())
		}
	}
}
