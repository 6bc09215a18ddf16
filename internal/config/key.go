package config

import (
	"fmt"
	"time"
	"unicode/utf16"

	"github.com/balena-injector/injector/balena"
	"github.com/balena-injector/injector/internal/words"
	"github.com/balena-injector/injector/key"
	"github.com/balena-injector/injector/render"
)

// Key is what is configured of one key.
type Key struct {
	Name        string // in INJECTOR_KEYS; empty: the only one
	Account     *Account
	CanRotate   bool // the credential can mint again at any time
	Kind        key.Kind
	Target      balena.Target
	Prefix      string
	Description string
	Times       Times
	Outputs     []render.Output
	Variables   []string // that exec puts the token into
	Notify      Notify
}

// Times is the schedule of a key.
type Times struct {
	TTL     time.Duration // how far ahead an expiry is set; at least key.MinTTL
	MaxTTL  time.Duration // how old a key may get before it is replaced; 0: never replaced
	Overlap time.Duration // how long the old key lives on after a new one was published
	Check   time.Duration // how often the server is asked whether the key lives
}

// Paths lists where the outputs are.
func (k Key) Paths() []string {
	var list []string
	for _, o := range k.Outputs {
		list = append(list, o.Path)
	}
	return list
}

func (p *parser) key(s *Key, v keyVariables) {
	s.Kind = key.Kind(v.Kind)
	switch s.Kind {
	case key.User, key.Fleet, key.Device:
		var err error
		if s.Target, err = balena.ParseTarget(s.Kind, v.Target); err != nil {
			p.fail("INJECTOR_TARGET", err.Error(), "")
		}
	default:
		p.fail("INJECTOR_KIND", "is not a kind of key", "give user, fleet or device")
	}
	s.Prefix, s.Description = v.Name, v.Description
	if err := key.CheckPrefix(v.Name); err != nil {
		p.fail("INJECTOR_NAME", err.Error(), "")
	}
	if n := len(utf16.Encode([]rune(v.Description))); n > 150 {
		p.fail("INJECTOR_DESCRIPTION", fmt.Sprintf("has %d characters", n), "balena takes up to 150")
	}
}

func (p *parser) times(s *Key, v keyVariables) (warning string) {
	before := len(p.problems)
	t := &s.Times
	t.TTL = p.duration("INJECTOR_TTL", v.TTL, key.MinTTL)
	t.Check = p.duration("INJECTOR_CHECK_INTERVAL", v.CheckInterval, time.Second)
	t.Overlap = min(time.Minute, t.TTL/6)
	if v.Overlap != "" {
		t.Overlap = p.duration("INJECTOR_OVERLAP", v.Overlap, 0)
	}
	if s.CanRotate = s.Account.Credentials.Password != nil || s.Kind != key.User; s.CanRotate {
		t.MaxTTL = max(24*time.Hour, t.TTL)
	}
	if v.MaxTTL != "" {
		t.MaxTTL = p.duration("INJECTOR_MAX_TTL", v.MaxTTL, 0)
	}
	if len(p.problems) > before {
		return ""
	}
	if t.Overlap > t.TTL/4 {
		p.fail("INJECTOR_OVERLAP", fmt.Sprintf("is %s, more than a quarter of INJECTOR_TTL", words.Short(t.Overlap)),
			fmt.Sprintf("give at most %s", words.Short(t.TTL/4)))
	}
	if t.MaxTTL != 0 && t.MaxTTL < t.TTL {
		p.fail("INJECTOR_MAX_TTL", fmt.Sprintf("is %s, shorter than INJECTOR_TTL", words.Short(t.MaxTTL)),
			fmt.Sprintf("give at least %s, or 0 to keep a key for ever", words.Short(t.TTL)))
	}
	if t.MaxTTL != 0 && !s.CanRotate {
		p.fail("INJECTOR_MAX_TTL", "asks for rotation, and a session token cannot mint another user key later",
			"give BALENA_USERNAME and BALENA_PASSWORD or BALENA_PASSWORD_FILE, or set it to 0")
	}
	if t.TTL < time.Minute {
		return fmt.Sprintf("INJECTOR_TTL=%s is for trying it out: a slow answer can cost the key", words.Short(t.TTL))
	}
	return ""
}
