package agent_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/balena-injector/injector/agent"
	"github.com/balena-injector/injector/balena"
	"github.com/balena-injector/injector/balena/balenatest"
	"github.com/balena-injector/injector/internal/statedir"
	"github.com/balena-injector/injector/internal/tally"
	"github.com/balena-injector/injector/key"
	"github.com/balena-injector/injector/render"
)

// world is a server, a machine and its clocks, in virtual time.
type world struct {
	t      *testing.T
	server *balenatest.Server
	url    string
	dial   func(context.Context, string, string) (net.Conn, error)
	dir    string
	log    *lockedBuffer

	// What the next life is configured with.
	times    agent.Times
	creds    balena.Credentials
	login    string
	kind     key.Kind
	target   string
	onDisk   bool // the state directory counts as on a disk
	keep     bool
	delay    time.Duration
	shutdown time.Duration
	initTime time.Duration
	wall     func() time.Time
	random   func() float64
	cache    *memory
	refusals *memory
	advise   func(error) string
	issuer   func(agent.Issuer) agent.Issuer // nil: as it is
	around   func(agent.Publisher, agent.Store) (agent.Publisher, agent.Store)
	announce func(p key.Publication, news bool)
	proven   time.Time
	client   string      // what the server knows it as
	crowded  *memoryFile // one of many agents: what it publishes stays in memory, and nothing is logged
}

func TestMain(m *testing.M) { os.Exit(tally.Run(m)) }

// inWorld runs f in a bubble of virtual time, with a server of those rules.
func inWorld(t *testing.T, opts balenatest.Options, f func(w *world)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		server := balenatest.New(opts)
		url, dial := server.Pipe(t)
		u := server.DefaultUser()
		w := &world{t: t, server: server, url: url, dial: dial, dir: t.TempDir(), log: &lockedBuffer{}, kind: key.User, refusals: &memory{},
			times:    agent.Times{TTL: time.Hour, MaxTTL: 24 * time.Hour, Overlap: time.Minute, Check: 5 * time.Minute},
			shutdown: 7 * time.Second, initTime: 2 * time.Minute}
		w.usePassword(u.Name, u.Password)
		t.Cleanup(func() {
			if t.Failed() {
				t.Logf("log:\n%s", w.log.String())
			}
			if text := w.log.String(); strings.Contains(text, u.Password) || strings.Contains(text, "eyJhb") {
				t.Error("the log shows a credential")
			}
			if strings.Contains(w.log.String(), "mistaken about a key") {
				t.Error("a key was in a state that cannot be")
			}
		})
		began := time.Now()
		f(w)
		tally.Add("virtual minutes", int(time.Since(began).Minutes()))
		w.checkPace()
	})
}

func secretSource(text string) balena.Source {
	return func() (key.Secret, error) { return key.NewSecret(text), nil }
}

func (w *world) usePassword(name, password string) {
	w.creds, w.login = balena.Credentials{Username: name, Password: secretSource(password)}, name
}

// usePasswordFile makes the password one that can change.
func (w *world) usePasswordFile(password string) *atomic.Value {
	content := &atomic.Value{}
	content.Store(password)
	w.creds.Password = func() (key.Secret, error) { return key.NewSecret(content.Load().(string)), nil }
	return content
}

func (w *world) useSession(age time.Duration) {
	w.creds, w.login = balena.Credentials{Session: secretSource(w.server.Session(w.server.DefaultUser(), age))}, ""
	w.times.MaxTTL = 0
}

// life is one process' life.
type life struct {
	w       *world
	agent   *agent.Agent
	account *balena.Account
	files   *render.Files
	stop    context.CancelCauseFunc
	kill    context.CancelFunc
	ended   chan error
	close   func()
}

func (w *world) token() string { return filepath.Join(w.dir, "token") }

// begin builds an agent and starts work on it.
func (w *world) begin(work func(a *agent.Agent, stop, kill context.Context) error) *life {
	w.t.Helper()
	state, err := statedir.Open(filepath.Join(w.dir, ".injector"))
	if err != nil {
		w.t.Fatal(err)
	}
	if w.crowded == nil {
		err = state.TryLock()
	}
	if err != nil {
		w.t.Fatal(err)
	}
	client, err := balena.NewClient(balena.Config{URL: w.url, Dial: w.dial, UserAgent: w.client})
	if err != nil {
		w.t.Fatal(err)
	}
	log := slog.New(slog.NewTextHandler(w.log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	cfg := balena.AccountConfig{Credentials: w.creds, Log: log, Refusals: w.refusals}
	if w.cache != nil {
		cfg.Cache = w.cache
	}
	account, err := balena.NewAccount(client, cfg)
	if err != nil {
		w.t.Fatal(err)
	}
	target, err := balena.ParseTarget(w.kind, w.target)
	if err != nil {
		w.t.Fatal(err)
	}
	budget := agent.NewBudget(w.times, w.kind != key.User)
	issuer := balena.NewIssuer(account, balena.IssuerConfig{Prefix: "test", Kind: w.kind, Target: target, Gate: budget})
	dirs := render.NewDirs(true)
	files := render.New(render.Config{Outputs: []render.Output{{Path: w.token(), Mode: 0o440, Owner: render.Keep}}, Dirs: dirs})
	var publisher agent.Publisher = &witness{Publisher: files, w: w, server: w.server}
	if w.crowded != nil {
		publisher, log = w.crowded, slog.New(slog.DiscardHandler)
	}
	var store agent.Store = state.Journal("")
	if !w.onDisk {
		store = inMemory{store}
	}
	var working agent.Issuer = issuer
	if w.issuer != nil {
		working = w.issuer(issuer)
	}
	if w.around != nil {
		publisher, store = w.around(publisher, store)
	}
	a := agent.New(agent.Config{
		Issuer:          working,
		Publisher:       publisher,
		Store:           store,
		Budget:          budget,
		Times:           w.times,
		URL:             w.url,
		Login:           w.login,
		Kind:            w.kind,
		Target:          target.String(),
		InitTimeout:     w.initTime,
		ShutdownDelay:   w.delay,
		ShutdownTimeout: w.shutdown,
		KeepOnExit:      w.keep,
		Crowd:           agent.Crowd{Turns: account.Turns(), Attended: true}, // as a key alone has them
		Log:             log,
		Advise:          w.advise,
		Announce:        w.announce,
		Proven:          w.proven,
		Wall:            w.wall,
		Random:          w.random,
	})
	stop, end := context.WithCancelCause(context.Background())
	kill, abandon := context.WithCancel(context.Background())
	l := &life{w: w, agent: a, account: account, files: files, stop: end, kill: abandon, ended: make(chan error, 1)}
	var once sync.Once
	l.close = func() {
		once.Do(func() { client.Close(); _ = dirs.Close(); _ = state.Close(); end(nil); abandon() })
	}
	w.t.Cleanup(l.close)
	if w.wall != nil {
		go l.attend(stop, files, w.wall, w.wall())
	} else {
		go l.attend(stop, files, time.Now, time.Now())
	}
	go func() { l.ended <- work(a, stop, kill) }()
	return l
}

// attend does what a process does for its agents: it tells of outputs that somebody has changed, and of clocks that were set.
func (l *life) attend(stop context.Context, files *render.Files, wall func() time.Time, then time.Time) {
	began := time.Now()
	for {
		select {
		case <-time.After(30 * time.Second):
		case <-stop.Done():
			return
		}
		jumped := (wall().Sub(then) - time.Since(began)).Abs() > time.Second
		if jumped || l.w.crowded == nil && files.Damage() != nil {
			began, then = time.Now(), wall()
			l.agent.LookAgain()
		}
	}
}

// beside is one of several agents that share an account. What it publishes stays in memory.
func (w *world) beside(account *balena.Account, dir string) *agent.Agent {
	w.t.Helper()
	if err := os.MkdirAll(filepath.Dir(dir), 0o700); err != nil {
		w.t.Fatal(err)
	}
	state, err := statedir.Open(dir)
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { _ = state.Close() })
	budget := agent.NewBudget(w.times, false)
	issuer := balena.NewIssuer(account, balena.IssuerConfig{Prefix: "test", Kind: key.User, Gate: budget})
	return agent.New(agent.Config{
		Issuer:          issuer,
		Publisher:       &memoryFile{},
		Store:           state.Journal(""),
		Budget:          budget,
		Times:           w.times,
		URL:             w.url,
		Login:           w.login,
		Kind:            key.User,
		InitTimeout:     w.initTime,
		ShutdownTimeout: w.shutdown,
		Log:             slog.New(slog.DiscardHandler),
	})
}

// inMemory is a store that keeps secrets wherever it lies, so that tests run where nothing is in memory.
type inMemory struct{ agent.Store }

func (m inMemory) Save(ctx context.Context, encode func(bool) ([]byte, error)) error {
	return m.Store.Save(ctx, func(bool) ([]byte, error) { return encode(true) })
}

// found is what lies in a state directory.
type found struct {
	Held bool
	Keys []agent.Resting
}

// lookAt reads a state directory and its journals as they lie there.
func lookAt(dir string) (found, error) {
	left, err := statedir.Look(dir)
	f := found{Held: left.Held}
	for _, j := range left.Journals {
		k, e := agent.ReadJournal(j.Data)
		f.Keys, err = append(f.Keys, k), errors.Join(err, j.Err, e)
	}
	return f, err
}

// witness is there when a generation is published: the server must accept its key at that instant. A test that looks at
// the file from time to time would miss one that is replaced at once.
type witness struct {
	agent.Publisher
	w      *world
	server *balenatest.Server
	seen   int // the last generation
}

func (v *witness) Publish(ctx context.Context, p key.Publication) error {
	if p.Generation > v.seen && !v.server.Accepts(p.Key.Secret.Reveal()) {
		tally.Add("bad reads", 1)
		v.w.t.Errorf("generation %d is published, and the server refuses its key", p.Generation)
	}
	v.seen = p.Generation
	return v.Publisher.Publish(ctx, p)
}

func (w *world) run() *life {
	w.t.Helper()
	return w.begin(func(a *agent.Agent, stop, kill context.Context) error { return a.Run(stop, kill) })
}

// init runs Init to its end.
func (w *world) init() error {
	w.t.Helper()
	l := w.begin(func(a *agent.Agent, stop, kill context.Context) error { return a.Init(stop, kill) })
	return l.wait()
}

func (l *life) wait() error {
	err := <-l.ended
	tally.Add("rotations", int(l.agent.Status().Counts.Rotations))
	l.close()
	return err
}

// end stops the life as SIGTERM does, and returns how it ended and how long that took.
func (l *life) end() (took time.Duration, err error) {
	began := time.Now()
	l.stop(errors.New("SIGTERM"))
	err = l.wait()
	return time.Since(began), err
}

// handOver stops the life as SIGQUIT does. As far as keys and files go, this is also what a
// crash between two steps leaves.
func (l *life) handOver() {
	l.w.t.Helper()
	l.stop(agent.ErrHandOver)
	if err := l.wait(); err != nil {
		l.w.t.Fatal(err)
	}
}

// endWell ends the life and expects a clean end with no live key.
func (l *life) endWell() {
	l.w.t.Helper()
	if _, err := l.end(); err != nil {
		l.w.t.Errorf("the end: %v", err)
	}
	l.w.wantLive(0)
	if _, err := os.Stat(l.w.token()); !errors.Is(err, os.ErrNotExist) {
		l.w.t.Errorf("the token file is left: %v", err)
	}
}

func (l *life) wantReady(want bool) {
	l.w.t.Helper()
	status := l.agent.Status()
	if damage := l.files.Damage(); damage != nil { // as those do who ask
		status = status.Damaged(damage, time.Now())
	}
	if status.Ready != want {
		l.w.t.Errorf("ready = %v (%s)", status.Ready, status.Reason)
	}
}

// sleep lets virtual time pass, and everything that happens meanwhile come to rest.
func (w *world) sleep(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

// published waits until the app has a token of which nothing is known to be wrong.
func (w *world) published(within time.Duration) string {
	w.t.Helper()
	for range int(within/(100*time.Millisecond)) + 1 {
		w.sleep(100 * time.Millisecond)
		if raw, err := os.ReadFile(w.token()); err == nil && w.server.Accepts(string(raw)) {
			return string(raw)
		}
	}
	w.t.Fatalf("nothing good was published within %v", within)
	return ""
}

func (w *world) read() string {
	raw, err := os.ReadFile(w.token())
	if err != nil {
		return ""
	}
	return string(raw)
}

// wantLive checks how many keys are live at the server.
func (w *world) wantLive(n int) {
	w.t.Helper()
	w.server.Settle()
	live := w.server.Live()
	tally.Add("keys leaked", max(0, len(live)-n))
	if len(live) != n {
		w.t.Errorf("%d keys are live, not %d: %+v", len(live), n, live)
	}
}

// wantGood checks that the app reads a token that the server accepts.
func (w *world) wantGood() {
	w.t.Helper()
	tally.Add("reads by apps", 1)
	if token := w.read(); !w.server.Accepts(token) {
		tally.Add("bad reads", 1)
		w.t.Errorf("the app reads a token of %d bytes that the server refuses", len(token))
	}
}

// wantCounts checks how many requests of each kind were seen, and that there were no others.
func (w *world) wantCounts(want map[string]int) {
	w.t.Helper()
	got := w.server.Counts()
	if fmt.Sprint(got) != fmt.Sprint(want) {
		w.t.Errorf("requests %v, not %v", got, want)
	}
}

// checkPace checks the hard limit: at most 40 requests in any 10 minutes, for schedules that do
// not ask for more by themselves. The last seconds of a life are exempt.
func (w *world) checkPace() {
	if w.times.TTL < 10*time.Minute || w.times.Check < time.Minute {
		return
	}
	w.checkPaceOf(w.server.Requests())
}

// checkPaceOf is checkPace for the requests of one agent.
func (w *world) checkPaceOf(seen []balenatest.Request) {
	w.t.Helper()
	for i, j := 0, 0; j < len(seen); j++ {
		for seen[j].At.Sub(seen[i].At) >= 10*time.Minute {
			i++
		}
		if n := j - i + 1; n > 40 {
			w.t.Errorf("%d requests within 10 minutes, up to %v", n, seen[j].At)
			return
		}
	}
}

func (w *world) wantLog(text string) {
	w.t.Helper()
	if !strings.Contains(w.log.String(), text) {
		w.t.Errorf("the log does not say %q", text)
	}
}

// lockedBuffer is a buffer that several goroutines write to.
type lockedBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

// memory is a balena.Store.
type memory struct {
	mu   sync.Mutex
	data []byte
}

func (m *memory) Load() ([]byte, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.data, nil
}

func (m *memory) Save(data []byte) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.data = append([]byte(nil), data...)
	return nil
}
