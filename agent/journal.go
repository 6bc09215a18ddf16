package agent

import (
	"crypto/subtle"
	"errors"
	"fmt"
	"time"

	"github.com/balena-injector/injector/key"
)

// journalVersion changes when an older program could misread the file.
const journalVersion = 1

// state is how far a key has come.
type state string

const (
	minting   state = "minting"   // the request that creates it was or is about to be sent
	minted    state = "minted"    // it exists, and no app has seen it
	published state = "published" // apps read it
	retiring  state = "retiring"  // to be revoked, at RetireAt
)

// record is one key in the journal. Times are the server's, but for RetireAt.
type record struct {
	Name     string     `json:"name"`
	Secret   key.Secret `json:"-"` // see storedRecord
	Handle   key.Secret `json:"-"` // what only the key's source can read
	ID       int64      `json:"id,omitempty"`
	State    state      `json:"state"`
	Expiry   time.Time  `json:"expiry"`
	Latest   time.Time  `json:"latest,omitzero"` // an expiry that was asked for, and may count
	Created  time.Time  `json:"created"`
	RetireAt time.Time  `json:"retire_at,omitzero"`
	Minted   time.Time  `json:"minted,omitzero"`       // when the mint had been answered; zero: not known
	Left     bool       `json:"left,omitempty"`        // an earlier process could have revoked it, and did not
	Forever  bool       `json:"unrevocable,omitempty"` // nothing but its expiry ends it
	// Given: the server ignored the chosen secret, so name and secret do not prove each other.
	Given bool `json:"given,omitempty"`
	// Mark is Account.Mark of the name, where no secret proves it: on a disk, and if the secret was given.
	Mark string `json:"mark,omitempty"`

	URL      string   `json:"url"`
	UserID   int64    `json:"user_id"`
	Login    string   `json:"login,omitempty"`
	Kind     key.Kind `json:"kind"`
	Target   string   `json:"target,omitempty"`
	TargetID int64    `json:"target_id,omitempty"`
}

// journal is the private record of every key that this agent has, or may have, at balena.
type journal struct {
	Version    int `json:"version"`
	Generation int `json:"generation"`
	// Acknowledged is the last generation that all notification targets know of.
	Acknowledged int      `json:"told,omitempty"`
	Outputs      []string `json:"outputs,omitempty"`
	Keys         []record `json:"keys"`

	// What the next start goes on with, so that one which fails again and again sends no more than one that lives.
	Budget carriedBudget `json:"budget,omitzero"`
	Mints  mintRow       `json:"mints,omitzero"`
	Ahead  time.Duration `json:"clock_ahead_ns,omitzero"` // how far the local clock was ahead of the server's
	// Unrevoked counts the keys that this and all earlier processes left to expire.
	Unrevoked int64 `json:"unrevoked,omitzero"`
}

// check refuses records that this program cannot have written. A name must have our form and,
// where the secret is there, be the secret's.
func (r record) check() error {
	cut := len(r.Name) - len("-") - 20
	switch {
	case cut < 1 || !key.Named(r.Name[:cut], r.Name):
		return errors.New("not a name that this program gives")
	case !r.Secret.IsZero() && !r.Given && !key.Prove(r.Name, r.Secret):
		return errors.New("name and secret do not belong together")
	case r.State != minting && r.State != minted && r.State != published && r.State != retiring:
		return fmt.Errorf("state %q", r.State)
	case r.Expiry.IsZero() || r.URL == "" || r.UserID <= 0 || r.ID < 0:
		return errors.New("expiry, URL or user is missing")
	case r.Kind != key.User && r.Kind != key.Fleet && r.Kind != key.Device:
		return fmt.Errorf("kind %q", r.Kind)
	}
	return nil
}

// proven reports whether the record is of a key of ours: its secret says so, or a mark that takes the credential to
// make. A stranger who may write the file can name another key in it, but cannot make us touch that one.
func (r record) proven(mark func(string) (string, bool)) bool {
	if !r.Secret.IsZero() && !r.Given {
		return true // check has compared name and secret
	}
	want, _ := mark(r.Name)
	return want != "" && subtle.ConstantTimeCompare([]byte(r.Mark), []byte(want)) == 1
}

// latest is the expiry that must be reckoned with.
func (r record) latest() time.Time {
	if r.Latest.After(r.Expiry) {
		return r.Latest
	}
	return r.Expiry
}

// key returns the record as the other packages see it.
func (r record) key() key.Key {
	k := key.Key{
		ID:       r.ID,
		Name:     r.Name,
		Kind:     r.Kind,
		Secret:   r.Secret,
		Handle:   r.Handle,
		Expiry:   r.Expiry,
		UserID:   r.UserID,
		TargetID: r.TargetID,
		Minted:   r.Minted,
		Given:    r.Given,
	}
	if k.Minted.IsZero() && r.State != minting {
		k.Minted = r.Created // a journal of an older version: the mint was sent right after the draft
	}
	return k
}
