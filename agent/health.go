package agent

import (
	"slices"
	"strings"
)

// health is what is known of whether the server accepts a key.
type health int

const (
	unproven       health = iota // nobody has asked in this process, or something happened since
	accepted                     // the server accepted it when it was asked last
	doubted                      // the server refuses it, and may merely not know it yet: it is asked again
	deadUnsettled                // refused beyond doubt, and yet listed, or nobody could find out: it is asked for again
	deadUnlistable               // refused beyond doubt, and the server lists no keys of this kind: there is nothing more to learn
	deadGone                     // refused beyond doubt, and not listed any more: there is nothing to revoke
	ended                        // it was revoked, or never came to be
)

var healthNames = [...]string{"unproven", "accepted", "doubted", "dead, unsettled", "dead, not listable", "dead, gone", "ended"}

func (h health) String() string { return healthNames[h] }

// dead reports whether the server refuses the key beyond doubt.
func (h health) dead() bool { return h == deadUnsettled || h == deadUnlistable || h == deadGone }

// changes are the ways in which a key's health may change. What is dead comes back only if it may be listed; what ended
// never does.
var changes = map[health][]health{
	unproven:       {accepted, doubted, deadUnsettled, deadUnlistable, deadGone, ended},
	accepted:       {unproven, doubted, deadUnsettled, deadUnlistable, deadGone, ended},
	doubted:        {unproven, accepted, deadUnsettled, deadUnlistable, deadGone, ended},
	deadUnsettled:  {unproven, accepted, ended},
	deadUnlistable: {ended},
	deadGone:       {ended},
	ended:          {},
}

// possible are the healths that a key of each state can have. One whose mint has not been answered cannot have been
// asked about; no app has seen one that was just minted, and so it is given up rather than kept although it is dead.
var possible = map[state][]health{
	minting:   {unproven, ended},
	minted:    {unproven, accepted, doubted, deadGone, ended},
	published: {unproven, accepted, doubted, deadUnsettled, deadUnlistable, deadGone, ended},
	retiring:  {unproven, accepted, doubted, deadUnsettled, deadUnlistable, deadGone, ended},
}

// mistaken begins the log line about a state that cannot be. Tests look for it.
const mistaken = "mistaken about a key"

// become changes what is known of h's health, and says so in the log: the only place that does. because may be empty.
func (a *Agent) become(h *holding, to health, because string) {
	from := h.health
	if from == to {
		return
	}
	if !slices.Contains(changes[from], to) || !slices.Contains(possible[h.rec.State], to) {
		a.log.Error(mistaken, append(h.attrs(), "state", h.rec.State, "from", from, "to", to)...)
	}
	switch h.health = to; {
	case to == accepted:
		h.doubtedSince = instant{}
	case to == doubted && h.doubtedSince.isZero(): // what happened to it meanwhile does not give it more time
		h.doubtedSince = a.clock.now()
	}
	args := append(h.attrs(), "from", from.String(), "to", to.String())
	if because != "" {
		args = append(args, "because", because)
	}
	a.log.Debug("the key's health", args...)
}

// unprove makes it necessary to ask whether the server accepts h, unless that is known to be dead.
func (a *Agent) unprove(h *holding, because string) {
	if !h.health.dead() {
		a.become(h, unproven, because)
	}
}

// limits are what the server does not let anybody do with a key.
type limits struct {
	cannotExtend bool // its expiry does not move, or its row cannot be read
	notListed    bool // a look for its row did not show it
	cannotRevoke bool // nothing but its expiry ends it
}

// notices are what was said of a key once and is not repeated.
type notices uint8

const (
	saidAccepted  notices = 1 << iota // in the log: the server accepts the adopted key
	saidExpired                       // in the log: it has expired
	saidDead                          // in the log, and counted for the pace of mints
	saidAnnounced                     // to the app: it can rely on it
)

func (n notices) has(one notices) bool { return n&one != 0 }

func (n *notices) add(one notices) { *n |= one }

func (n *notices) drop(one notices) { *n &^= one }

// answers are what the server has told of a key in this process.
type answers struct {
	expiry bool // its expiry
	row    bool // its row, which proves that the id is ours
	health bool // it was asked whether it accepts the key
}

// because makes the reason of an error short enough for the log.
func because(err error) string {
	if err == nil {
		return ""
	}
	text, _, _ := strings.Cut(err.Error(), "\n")
	return text
}
