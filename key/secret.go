package key

import (
	"crypto/subtle"
	"fmt"
	"io"
	"log/slog"
)

// hidden is what every way of printing a secret shows.
const hidden = "[secret]"

// Secret is a string that must not be seen: an API key's secret, a password, a session.
//
// The value lies behind an unexported pointer, so that even reflection-based printers that
// reach it inside another struct show an address; fmt, slog, encoding/json and everything else
// that asks for text get the word [secret]. Reveal is the only way out, and is meant to be
// searched for.
//
// The zero value is the absent secret. Secrets are immutable and safe for concurrent use.
type Secret struct{ value *string }

// NewSecret hides s. An empty string gives the absent secret.
func NewSecret(s string) Secret {
	if s == "" {
		return Secret{}
	}
	return Secret{value: &s}
}

// Reveal returns the hidden string, or "" for the absent secret. Call it where the bytes leave
// the process (a request, a file) and nowhere else.
func (s Secret) Reveal() string {
	if s.value == nil {
		return ""
	}
	return *s.value
}

// IsZero reports whether the secret is absent.
func (s Secret) IsZero() bool { return s.value == nil }

// Equal compares in constant time. Two absent secrets are equal.
func (s Secret) Equal(other Secret) bool {
	return subtle.ConstantTimeCompare([]byte(s.Reveal()), []byte(other.Reveal())) == 1
}

// Format prints [secret], or nothing for the absent secret, for every verb and flag.
func (s Secret) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, s.shown()) }

// LogValue keeps the secret out of structured logs.
func (s Secret) LogValue() slog.Value { return slog.StringValue(s.shown()) }

// MarshalText keeps the secret out of JSON and of all else that marshals text. What really
// must be stored is revealed by hand, where a reader can see it.
func (s Secret) MarshalText() ([]byte, error) { return []byte(s.shown()), nil }

func (s Secret) shown() string {
	if s.value == nil {
		return ""
	}
	return hidden
}
