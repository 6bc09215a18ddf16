package agent

import (
	"context"
	"time"

	"github.com/balena-injector/injector/key"
)

// Issuer is a source of keys: it makes, extends and ends the keys of one kind and target in the name of one account. A
// request may take as long as key.TryTimeout of its context says. Failures are key.Failures; what each class means for a
// method is said there. An Issuer must count every request against the agent's Budget.
type Issuer interface {
	// Identify returns the account's user id, 0 if it could not be found out, and the id of the user, fleet or device
	// that the keys act for, and sees to it that the server's time is known.
	Identify(ctx context.Context) (userID, targetID int64, err error)
	// Draft returns a key that exists nowhere yet: its name, secret, user, target, and an expiry that is ttl ahead by the
	// server's clock. It identifies the account first.
	Draft(ctx context.Context, ttl time.Duration) (key.Key, error)
	// Mint creates k, or finds (existed) that an earlier call did. It is called with the same name and secret until it
	// succeeds. The key returned is the one that counts: its secret may be another one, which is then Given. Any class of
	// failure but key.Ambiguous (and key.Unknown) promises that this call created nothing.
	Mint(ctx context.Context, k key.Key) (minted key.Key, existed bool, err error)
	// Find returns k with the id and expiry of the row that our mint made, and Seen: key.Gone if the server lists no
	// such key, or key.Unrevocable if the credential cannot list keys.
	Find(ctx context.Context, k key.Key) (key.Key, error)
	// Extend asks for another expiry and returns k as the server has it then, whose expiry the caller compares. It
	// finds k first if it was not Seen. key.Gone: there is no such key; key.Unrevocable: it cannot be extended.
	Extend(ctx context.Context, k key.Key, expiry time.Time) (key.Key, error)
	// Revoke ends k, and returns nil once it is known to be gone. It finds k first if it was not Seen.
	// key.Unrevocable: nothing but its expiry ends it.
	Revoke(ctx context.Context, k key.Key) error
	// Verify returns nil if the server accepts k, and key.Gone only if it is dead beyond doubt.
	Verify(ctx context.Context, k key.Key) error
	// Accepts is a Verify of one request: key.Gone from it is not a proof.
	Accepts(ctx context.Context, k key.Key) error
	// KnownUser returns the user id as far as it is known without asking; else 0.
	KnownUser(ctx context.Context) int64
	// Tend looks after the session and returns when to do so again; 0 means never.
	Tend(ctx context.Context) (time.Duration, error)
	// Now returns the server's time, and whether it can be relied on.
	Now() (now time.Time, reliable bool)
	// Mark returns a code over text that takes the credential to make, or "" if that cannot be read. proven reports
	// whether the credential has worked.
	Mark(text string) (code string, proven bool)
}

// Publisher makes a key visible to the app. Its methods may be called from any goroutine.
type Publisher interface {
	// Prove checks that publishing will work, without changing what the app sees.
	Prove(ctx context.Context) error
	// Publish replaces all outputs. If one cannot be rendered or written, none is replaced. Equal ones are not written
	// again. After an error it is called again.
	Publish(ctx context.Context, p key.Publication) error
	// Describe writes down the generation and expiry of what was published last.
	Describe(ctx context.Context, p key.Publication) error
	// Inspect looks at the outputs and returns nil if they are what Publish(p) wrote, else why not. The agent asks for
	// it when it has slept, at most once a second.
	Inspect(ctx context.Context, p key.Publication) error
	// Remove removes all outputs. It is not an error if there are none.
	Remove(ctx context.Context) error
	// Sweep removes what a process that was killed left half written.
	Sweep(ctx context.Context) error
}

// Store keeps the journal of one agent for its next start.
type Store interface {
	// Load returns what is stored, nil if nothing is.
	Load(ctx context.Context) ([]byte, error)
	// Save replaces what was loaded or saved last by what encode returns, which is told whether secrets may be stored
	// here. If somebody else has stored something since, it fails and changes nothing.
	Save(ctx context.Context, encode func(secrets bool) ([]byte, error)) error
	// Displaced reports whether what was saved last lies where the next start would not find it. It is saved again then.
	Displaced() bool
	// SetAside keeps what cannot be read as a journal where no Load finds it, and says where.
	SetAside(ctx context.Context) (where string, err error)
	// Sweep removes what a process that was killed left half written.
	Sweep() error
}
