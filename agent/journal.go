package agent

import (
	"crypto/subtle"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/balena-injector/injector/key"
)

// journalVersion changes when an older program could misread the file.
const journalVersion = 1

// maxJournal caps what is read: some 400 keys.
const maxJournal = 256 << 10

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
	Name     string    `json:"name"`
	Secret   string    `json:"secret,omitempty"` // only in memory
	ID       int64     `json:"id,omitempty"`
	State    state     `json:"state"`
	Expiry   time.Time `json:"expiry"`
	Latest   time.Time `json:"latest,omitzero"` // an expiry that was asked for, and may count
	Created  time.Time `json:"created"`
	RetireAt time.Time `json:"retire_at,omitzero"`
	Minted   time.Time `json:"minted,omitzero"`       // when the mint had been answered; zero: not known
	Left     bool      `json:"left,omitempty"`        // an earlier process could have revoked it, and did not
	Forever  bool      `json:"unrevocable,omitempty"` // nothing but its expiry ends it
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
	Version    int      `json:"version"`
	Generation int      `json:"generation"`
	Told       int      `json:"told,omitempty"` // the last generation that whoever must be told knows of
	Outputs    []string `json:"outputs,omitempty"`
	Keys       []record `json:"keys"`

	// What the next start goes on with, so that one which fails again and again sends no more than one that lives.
	Budget carriedBudget `json:"budget,omitzero"`
	Mints  mintRow       `json:"mints,omitzero"`
	Ahead  time.Duration `json:"clock_ahead_ns,omitzero"` // how far the local clock was ahead of the server's
	// Unrevoked counts the keys that this and all earlier processes left to expire.
	Unrevoked int64 `json:"unrevoked,omitzero"`

	slot string // whose file it is
}

// journalName is the file of a slot's journal: each key of several has one of its own, since a
// thousand of them in one file would be written thousands of times.
func journalName(slot string) string {
	if slot == "" {
		return "journal.json"
	}
	return "journal-" + slot + ".json"
}

// Slots lists the slots that have a journal in the directory.
func (s *StateDir) Slots() ([]string, error) {
	names, err := s.current().Names()
	var slots []string
	for _, name := range names {
		if name == journalName("") {
			slots = append(slots, "")
		} else if slot, ok := strings.CutPrefix(name, "journal-"); ok {
			if slot, ok = strings.CutSuffix(slot, ".json"); ok {
				slots = append(slots, slot)
			}
		}
	}
	slices.Sort(slots)
	return slots, err
}

// Recorded is what a slot's journal tells to who has to clean up after it.
type Recorded struct {
	Outputs []string // the paths that were written
	Names   []string // of the keys
	Login   string   // whose credential minted the last of them
}

// Recorded reads a slot's journal, and changes nothing.
func (s *StateDir) Recorded(slot string) (Recorded, error) {
	raw, err := s.Read(journalName(slot), maxJournal)
	if err != nil {
		return Recorded{}, err
	}
	j, err := parseJournal(raw)
	r := Recorded{Outputs: j.Outputs}
	for _, k := range j.Keys {
		r.Names, r.Login = append(r.Names, k.Name), k.Login
	}
	return r, err
}

// Forget removes a slot's journal if it names no key.
func (s *StateDir) Forget(slot string) error {
	j, err := loadJournal(s, slot)
	if err != nil || len(j.Keys) > 0 {
		return err
	}
	return s.current().Remove(journalName(slot))
}

// errSetAside is wrapped by errors about a journal that cannot be used.
var errSetAside = errors.New("the journal cannot be used")

// loadJournal reads the journal; an empty one if there is none. One that is corrupt or of
// another version is set aside under another name, and reported with errSetAside.
func loadJournal(dir *StateDir, slot string) (journal, error) {
	journalFile := journalName(slot)
	empty := journal{Version: journalVersion, slot: slot}
	raw, err := dir.Read(journalFile, maxJournal)
	if errors.Is(err, fs.ErrNotExist) {
		return empty, nil
	}
	var j journal
	if err == nil {
		j, err = parseJournal(raw)
	}
	if j.slot = slot; err == nil {
		return j, nil
	}
	aside := journalFile + ".unusable"
	if e := dir.Root().Rename(journalFile, aside); e != nil {
		return empty, fmt.Errorf("%w: %w; it could not be set aside: %w", errSetAside, err, e)
	}
	return empty, fmt.Errorf("%w: %w; it was set aside as %s/%s, and keys that it named die at their expiry", errSetAside, err, dir.Path(), aside)
}

// parseJournal reads and checks a journal.
func parseJournal(raw []byte) (journal, error) {
	var j journal
	if err := json.Unmarshal(raw, &j); err != nil {
		return j, fmt.Errorf("not the JSON of a journal: %w", err)
	}
	if j.Version != journalVersion {
		return j, fmt.Errorf("version %d, and this program knows version %d", j.Version, journalVersion)
	}
	for _, r := range j.Keys {
		if err := r.check(); err != nil {
			return j, fmt.Errorf("key %q: %w", r.Name, err)
		}
	}
	return j, nil
}

// check refuses records that this program cannot have written. A name must have our form and,
// where the secret is there, be the secret's.
func (r record) check() error {
	cut := len(r.Name) - len("-") - 20
	switch {
	case cut < 1 || !key.Named(r.Name[:cut], r.Name):
		return errors.New("not a name that this program gives")
	case r.Secret != "" && !r.Given && !key.Prove(r.Name, key.NewSecret(r.Secret)):
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
// make. Whoever may write the file can name another key in it, but cannot make us touch that one.
func (r record) proven(mark func(string) (string, bool)) bool {
	if r.Secret != "" && !r.Given {
		return true // check has compared name and secret
	}
	want, _ := mark(r.Name)
	return want != "" && subtle.ConstantTimeCompare([]byte(r.Mark), []byte(want)) == 1
}

// save writes the journal as a whole. Secrets are kept only where the directory is in memory:
// there the app's own file shows no less.
func (j journal) save(dir *StateDir, mark func(string) (string, bool)) error {
	if _, err := dir.Follow(); err != nil {
		return err
	}
	j.Keys = slices.Clone(j.Keys)
	for i := range j.Keys {
		r := &j.Keys[i]
		if !dir.KeepsSecrets() {
			r.Secret = ""
		}
		if r.Secret != "" && !r.Given {
			continue
		}
		if m, worked := mark(r.Name); worked || r.Mark == "" { // a typo in a file must not unmake what was proven
			r.Mark = m
		}
	}
	raw, err := json.MarshalIndent(j, "", " ")
	if err != nil {
		return err
	}
	err = dir.Replace(journalName(j.slot), append(raw, '\n'), 0o600)
	if errors.Is(err, os.ErrClosed) { // somebody has found another directory in this one's place just now
		err = dir.Replace(journalName(j.slot), append(raw, '\n'), 0o600)
	}
	return err
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
	k := key.Key{ID: r.ID, Name: r.Name, Kind: r.Kind, Secret: key.NewSecret(r.Secret), Expiry: r.Expiry, UserID: r.UserID,
		Minted: r.Minted, Given: r.Given}
	if k.Minted.IsZero() && r.State != minting {
		k.Minted = r.Created // a journal of an older version: the mint was sent right after the draft
	}
	return k
}
