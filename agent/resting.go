package agent

import (
	"time"

	"github.com/balena-injector/injector/key"
)

// Resting is what a journal says while no agent works with it.
type Resting struct {
	Outputs []string      // the paths that were written
	Names   []string      // of all its keys, the current one among them
	Login   string        // whose credential minted the last of them; may be empty
	Ahead   time.Duration // how far the local clock was ahead of the server's
	URL     string        // the API's
	Waits   time.Duration // how long the next start waits before it mints
	Secret  key.Secret    // of the key that apps read; absent on a disk
	Matters bool          // a later start goes on with it: with a key, the pace of mints or a budget that is used up
	Status                // without a plan: what the journal names
}

// ReadJournal reads the bytes that an agent saved to its Store.
func ReadJournal(raw []byte) (Resting, error) {
	j, err := parseJournal(raw)
	if err != nil {
		return Resting{Matters: true}, err
	}
	return j.rest(time.Now()), nil
}

// rest sorts the keys of a journal for people.
func (j journal) rest(now time.Time) Resting {
	k := Resting{Outputs: j.Outputs, Ahead: j.Ahead, Waits: j.Mints.wait(now),
		Matters: len(j.Keys) > 0 || j.Mints != (mintRow{}) || !j.Budget.At.IsZero(),
		Status:  Status{Phase: "at rest", Generation: j.Generation, Live: len(j.Keys)}}
	for _, r := range j.Keys {
		h := &holding{rec: r, retireAt: instant{wall: r.RetireAt}}
		status := h.status()
		switch {
		case r.State == published && k.Key == nil:
			k.Key, k.Secret = &status, r.Secret
			k.Schedule.ExpiresAt = r.latest()
		case (r.State == minting || r.State == minted) && k.Coming == nil:
			k.Coming = &status
		default:
			k.Old = append(k.Old, status)
		}
		k.UserID, k.URL, k.Login = r.UserID, r.URL, r.Login
		k.Names = append(k.Names, r.Name)
	}
	k.Counts.Unrevoked = j.Unrevoked
	return k
}
