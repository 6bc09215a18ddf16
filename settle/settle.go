// Package settle finds out what became of a mint whose answer was lost.
//
// A mint may take effect although its answer never came, and a while after it was given up. Because its name and secret
// are chosen before it is sent, sending the same again settles it: the server makes the key, or says that it is there.
// Where the secret is not known any more, or a server ignores the choice, only looking for the name is left.
package settle

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/balena-injector/injector/key"
)

// Pause lies between two looks that together prove that a key never came to be: a request that was cut off was seen to
// take effect 0.3 s later.
const Pause = 5 * time.Second

// Issuer is what is asked of balena.Issuer and its like.
type Issuer interface {
	// Mint creates k, or finds (existed) that an earlier call did. Any class of failure but key.Ambiguous and
	// key.Unknown promises that this call created nothing.
	Mint(ctx context.Context, k key.Key) (minted key.Key, existed bool, err error)
	// Find returns k with its id. Errors have the class key.Gone if the server lists no such key, and key.Unrevocable if
	// the credential cannot list keys.
	Find(ctx context.Context, k key.Key) (key.Key, error)
}

// Mint is what is known of one mint. The zero value is one that was not sent yet. It is not safe for concurrent use.
type Mint struct {
	sent    bool      // a try may have reached the server
	existed bool      // the server answered that the key was there already
	cutOff  time.Time // when the last try was cut off that may yet take effect; zero: none
	missed  time.Time // when the first look found nothing; zero: none has
}

// Earlier returns a mint that an earlier process may have sent a moment ago.
func Earlier() Mint { return Mint{sent: true, cutOff: time.Now()} }

// Made returns a mint of an earlier process that was answered.
func Made() Mint { return Mint{sent: true} }

// Sent reports whether a try may have reached the server.
func (m *Mint) Sent() bool { return m.sent }

// Existed reports whether the server answered that the key was there already, perhaps with an earlier try's expiry.
func (m *Mint) Existed() bool { return m.existed }

// Send sends the mint, or sends it again. Without an error the key returned exists; with one it is k. Errors are those of
// Issuer.Mint; the caller sends again after key.Outage, key.Busy, key.Ambiguous and key.Unknown.
func (m *Mint) Send(ctx context.Context, i Issuer, k key.Key) (key.Key, error) {
	minted, existed, err := i.Mint(ctx, k)
	if err == nil {
		m.sent, m.existed = true, existed
		if existed {
			m.cutOff = time.Time{} // it has taken effect, and cannot do so twice
		}
		return minted, nil
	}
	if class, _ := key.ClassOf(err); class == key.Ambiguous || class == key.Unknown {
		m.sent, m.cutOff = true, time.Now()
	}
	return k, err
}

// Look looks for the key by its name, for a mint that cannot be sent again. It returns the key with its id if it came to
// be, and never once two looks, Pause apart, have not found it. NotYet means to look again. An error of class
// key.Unrevocable means that the server may not list such keys: nobody will know, and the key, if it is one, dies at its
// expiry.
func (m *Mint) Look(ctx context.Context, i Issuer, k key.Key) (found key.Key, never bool, err error) {
	found, err = i.Find(ctx, k)
	if !key.Is(err, key.Gone) {
		return found, false, err
	}
	if m.missed.IsZero() {
		m.missed = time.Now()
	}
	if wait := Pause - time.Since(m.missed); wait > 0 {
		return k, false, &NotYet{wait, "looking once more whether the key came to be"}
	}
	if k.Kind != key.User {
		return k, false, &unseenError{}
	}
	return k, true, nil
}

// Doubt returns how long a try that was cut off may still take effect, for one who has revoked the key: its name is free
// again. It is 0 if there was none.
func (m *Mint) Doubt() time.Duration {
	if m.cutOff.IsZero() {
		return 0
	}
	return max(0, Pause-time.Since(m.cutOff))
}

// NotYet is the error of what is to be tried again after a while although nothing failed. Its class is key.Busy.
type NotYet struct {
	For time.Duration // how long to wait
	Why string        // what is waited for, for the log
}

// Error says why to wait.
func (n *NotYet) Error() string { return n.Why }

// FailureClass is key.Busy.
func (n *NotYet) FailureClass() key.Class { return key.Busy }

// RetryAfter is how long to wait.
func (n *NotYet) RetryAfter() time.Duration { return n.For }

// unseenError is about a key that may exist and cannot be seen.
type unseenError struct{}

func (*unseenError) Error() string             { return "the server may not list keys of this kind" }
func (*unseenError) FailureClass() key.Class   { return key.Unrevocable }
func (*unseenError) RetryAfter() time.Duration { return 0 }

// ErrUnsettled is wrapped by the error of Settle when the key may exist. It is then to be looked for, or left to expire.
var ErrUnsettled = errors.New("it is not known whether the key was made")

const (
	firstPause = 500 * time.Millisecond
	maxPause   = 10 * time.Second
)

// Settle mints k and settles that before it returns: it sends the same again while the answer is lost or the server is
// away, and looks for the key where it may not be sent again. It returns the key that exists, or k with an error. One that
// wraps ErrUnsettled means that the key may exist, as when ctx ends after a try that may have reached the server; any other
// one, that it does not.
func Settle(ctx context.Context, i Issuer, k key.Key) (key.Key, error) {
	var m Mint
	for pause := firstPause; ; pause = min(2*pause, maxPause) {
		minted, err := m.Send(ctx, i, k)
		if err == nil {
			return minted, nil
		}
		class, wait := key.ClassOf(err)
		switch class {
		case key.Outage, key.Busy, key.Ambiguous, key.Unknown:
		default:
			if !m.sent {
				return k, err
			}
			return m.lookFor(ctx, i, k, err)
		}
		if e := sleep(ctx, max(pause, wait)); e != nil {
			return k, m.left(errors.Join(e, err))
		}
	}
}

// lookFor looks until it is certain whether the key came to be: refusal is why it cannot be sent again.
func (m *Mint) lookFor(ctx context.Context, i Issuer, k key.Key, refusal error) (key.Key, error) {
	for pause := firstPause; ; pause = min(2*pause, maxPause) {
		found, never, err := m.Look(ctx, i, k)
		switch class, wait := key.ClassOf(err); {
		case never:
			return k, refusal
		case err == nil:
			return found, nil
		case class == key.Outage || class == key.Busy || class == key.Unknown:
			if e := sleep(ctx, max(pause, wait)); e != nil {
				return k, m.left(errors.Join(e, err))
			}
		default:
			return k, m.left(errors.Join(err, refusal))
		}
	}
}

// left is err, for a key that may exist if a try was sent.
func (m *Mint) left(err error) error {
	if !m.sent {
		return err
	}
	return fmt.Errorf("%w: %w", ErrUnsettled, err)
}

func sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
