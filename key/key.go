// Package key has the nouns that the other packages share: a key, its unprintable secret, and
// the classes of failure that tell a caller whether and when to try again.
//
// It knows no HTTP, no files and no clock. agent, balena and render do not know each other;
// they meet here.
package key

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strings"
	"time"
)

// Kind says on whose behalf a key acts.
type Kind string

// The kinds of key that balena knows.
const (
	User   Kind = "user"   // all that the account's user may do
	Fleet  Kind = "fleet"  // provisions devices into one fleet
	Device Kind = "device" // acts as one device
)

// Key is an API key at balena.
type Key struct {
	ID     int64     // the server's row, 0 while it is not known (or cannot be read)
	Name   string    // Name(prefix, secret): unique, because the secret is
	Kind   Kind      // on whose behalf it acts
	Secret Secret    // what an app sends; absent in a journal on disk
	Expiry time.Time // by the server's clock; never zero for a key of ours
	UserID int64     // the account that minted it

	// Handle is what only the source of the key can read, such as the lease that it came with; absent for a source that
	// needs none. It is as secret as Secret.
	Handle Secret
	// TargetID is the id of the user, fleet or device that the key acts for; 0 while that is not known.
	TargetID int64

	// Minted is when the server had answered the mint, by its clock; zero while that is not known. A row of this
	// name that was made later is somebody else's: nobody could have known the name before.
	Minted time.Time
	// Given reports that the server chose the secret, so that name and secret do not prove each other.
	Given bool
	// Seen reports that this process has read the row with this ID and found it to be the one that our mint made. An ID
	// without it is somebody's word, such as a journal's.
	Seen bool
}

// Publication is what an app gets to see of a key.
type Publication struct {
	Generation int // 1 for the first key, one more for each that replaced it
	Key        Key
	Left       time.Duration // how much life it has from now
}

const (
	// digest is how many hex digits of the secret's hash a name carries: 80 bits.
	digest = 20
	// MaxPrefix is how long a name's prefix may be: balena takes names of 1 to 50 characters.
	MaxPrefix = 50 - 1 - digest
)

// Draft returns a new key with a chosen secret and the name that belongs to it. It exists
// nowhere yet. The secret has 32 hex digits of which at least one is a letter: the Node SDK's
// settings store reads a token of digits only as a number.
func Draft(prefix string, kind Kind, userID int64, expiry time.Time) Key {
	for {
		var raw [16]byte
		_, _ = rand.Read(raw[:]) // never fails: crypto/rand ends the process instead
		text := hex.EncodeToString(raw[:])
		if strings.ContainsAny(text, "abcdef") {
			secret := NewSecret(text)
			return Key{Name: Name(prefix, secret), Kind: kind, Secret: secret, Expiry: expiry, UserID: userID}
		}
	}
}

// Name is the name of the key with that secret: the prefix, a dash and 20 hex digits of the
// secret's SHA-256. So a name and a secret prove each other, and a name proves to be ours
// without telling the secret.
func Name(prefix string, secret Secret) string {
	sum := sha256.Sum256([]byte(secret.Reveal()))
	return prefix + "-" + hex.EncodeToString(sum[:])[:digest]
}

// Proven reports whether name and secret prove each other: the key is one that was made with a secret of ours.
func (k Key) Proven() bool {
	return Prove(k.Name, k.Secret)
}

// Prove reports whether name is Name(prefix, secret) for some prefix.
func Prove(name string, secret Secret) bool {
	cut := len(name) - len("-") - digest
	return cut > 0 && !secret.IsZero() && Name(name[:cut], secret) == name
}

// Prefix returns the prefix of a name of ours, and "" if it has not the form that Name gives.
func Prefix(name string) string {
	cut := len(name) - len("-") - digest
	if cut < 1 || !Named(name[:cut], name) {
		return ""
	}
	return name[:cut]
}

// CheckPrefix returns an error that says what is wrong with a prefix for names.
func CheckPrefix(prefix string) error {
	const letters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
	if prefix == "" || len(prefix) > MaxPrefix || strings.Trim(prefix, letters+"._-") != "" || strings.Trim(prefix[:1], letters) != "" {
		return fmt.Errorf("must be 1 to %d letters, digits, dots, dashes or underscores, the first a letter or digit", MaxPrefix)
	}
	return nil
}

// Named reports whether name has the form that Name gives to keys with that prefix.
func Named(prefix, name string) bool {
	rest, ok := strings.CutPrefix(name, prefix+"-")
	return ok && len(rest) == digest && strings.Trim(rest, "0123456789abcdef") == ""
}
