package balenatest

import (
	"crypto/rand"
	"fmt"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/balena-injector/injector/key"
)

// User is somebody with an account.
type User struct {
	ID         int64
	Name       string
	Email      string
	Password   string
	TOTPSecret string // base32; not empty: logins need a second factor
	jwtSecret  string // changes with the password, which ends all sessions
	actor      int64
}

// Fleet is a fleet (an "application" to the API).
type Fleet struct {
	ID         int64
	Slug, UUID string
	Owner      int64
}

// Device is a device.
type Device struct {
	ID    int64
	UUID  string
	Owner int64
}

// Options sets the rules of a server. The zero value is open-balena-api with its defaults.
type Options struct {
	SessionLife time.Duration // 0: 7 days
	FixedExpiry bool          // a refresh does not move a session's exp
	FreshFor    time.Duration // how old a login may be for minting; 0: 20 minutes
	// ListsAll makes fleet and device keys listed, extendable and revocable by a session, as on
	// balenaCloud.
	ListsAll bool
	// DatabaseAhead is how far the database's clock, which dates rows, is ahead of the server's.
	DatabaseAhead time.Duration
	// IgnoresChoice makes minting ignore the secret that the caller chose.
	IgnoresChoice bool
}

// Server is one API with its data. Make it with New. It is safe for concurrent use.
type Server struct {
	opts    Options
	mux     *http.ServeMux
	mu      sync.Mutex
	users   []*User
	fleets  []*Fleet
	devices []*Device
	keys    shelf
	lastID  int64
	fails   map[string][]time.Time // refused logins by address and name
	faults  []*Fault
	seen    []Request
	bearers map[string]bool
	down    bool
	away    bool
	refuses bool
	shift   time.Duration
	limit   limit
	pending sync.WaitGroup // effects that come later
}

// New returns a server with one user ("injector", see DefaultUser), one fleet and one device.
func New(opts Options) *Server {
	if opts.SessionLife == 0 {
		opts.SessionLife = 7 * 24 * time.Hour
	}
	if opts.FreshFor == 0 {
		opts.FreshFor = 20 * time.Minute
	}
	s := &Server{opts: opts, fails: map[string][]time.Time{}, bearers: map[string]bool{}, lastID: 100, keys: newShelf()}
	s.routes()
	u := s.AddUser("injector", "correct horse battery", "")
	s.AddFleet(u, "acme/thermostat")
	s.AddDevice(u)
	return s
}

// DefaultUser returns the user that New made.
func (s *Server) DefaultUser() *User { return s.users[0] }

// DefaultFleet returns the fleet that New made.
func (s *Server) DefaultFleet() *Fleet { return s.fleets[0] }

// DefaultDevice returns the device that New made.
func (s *Server) DefaultDevice() *Device { return s.devices[0] }

// AddUser makes a user; a TOTP secret (base32) makes logins need a second factor.
func (s *Server) AddUser(name, password, totp string) *User {
	s.mu.Lock()
	defer s.mu.Unlock()
	u := &User{ID: s.nextID(), actor: s.nextID(), Name: name, Email: name + "@example.org", Password: password,
		TOTPSecret: totp, jwtSecret: rand.Text()}
	s.users = append(s.users, u)
	return u
}

// AddFleet makes a fleet.
func (s *Server) AddFleet(owner *User, slug string) *Fleet {
	s.mu.Lock()
	defer s.mu.Unlock()
	f := &Fleet{ID: s.nextID(), Slug: slug, UUID: hexText(32), Owner: owner.ID}
	s.fleets = append(s.fleets, f)
	return f
}

// AddDevice makes a device.
func (s *Server) AddDevice(owner *User) *Device {
	s.mu.Lock()
	defer s.mu.Unlock()
	d := &Device{ID: s.nextID(), UUID: hexText(62), Owner: owner.ID}
	s.devices = append(s.devices, d)
	return d
}

func (s *Server) nextID() int64 { s.lastID++; return s.lastID }

func hexText(n int) string {
	raw := make([]byte, n/2)
	_, _ = rand.Read(raw)
	return fmt.Sprintf("%x", raw)
}

// ChangePassword changes a user's password, which ends all sessions; keys survive it.
func (s *Server) ChangePassword(u *User, password string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	u.Password, u.jwtSecret = password, rand.Text()
}

// JWTSecret returns what the server signs its sessions with.
func (s *Server) JWTSecret() string { return signingSecret }

// Session returns a session token for u from a login that long ago.
func (s *Server) Session(u *User, age time.Duration) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.now()
	return s.sign(claims{ID: u.ID, Secret: u.jwtSecret, AuthTime: now.Add(-age).UnixMilli(), Issued: now.Add(-age).Unix(),
		Expires: now.Add(-age).Add(s.opts.SessionLife).Unix()})
}

// AddKey makes a key by hand, as if somebody had made it in the dashboard.
func (s *Server) AddKey(owner *User, name string, expiry time.Time) *Key {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.add(Key{Name: name, Secret: rand.Text(), Expiry: expiry, Kind: key.User, Target: owner.ID, Owner: owner.ID})
}

func (s *Server) add(k Key) *Key {
	k.ID, k.Created = s.nextID(), s.now()
	s.keys.add(&k)
	return &k
}

// DeleteKey deletes a key, as somebody in the dashboard would, and reports whether it was there.
func (s *Server) DeleteKey(id int64) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.keys.remove(slices.Clone(s.keys.among(query{id: id}))) > 0
}

// Live returns copies of all keys that the server would accept now. Effects that are still to
// come do not count: see Settle.
func (s *Server) Live() []Key { return s.filter(s.live) }

// All returns copies of all keys, the expired ones included.
func (s *Server) All() []Key { return s.filter(func(*Key) bool { return true }) }

func (s *Server) filter(match func(*Key) bool) []Key {
	s.mu.Lock()
	defer s.mu.Unlock()
	var found []Key
	for _, k := range s.keys.all {
		if match(k) {
			found = append(found, *k)
		}
	}
	return found
}

func (s *Server) live(k *Key) bool { return k.Expiry.IsZero() || s.now().Before(k.Expiry) }

// Accepts reports whether secret is a live key's.
func (s *Server) Accepts(secret string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.keyOf(secret) != nil
}

func (s *Server) keyOf(secret string) *Key {
	if k := s.keys.bySecret[secret]; k != nil && s.live(k) {
		return k
	}
	return nil
}

// now is the server's time. The caller holds mu.
func (s *Server) now() time.Time { return time.Now().Round(0).Add(s.shift) }
