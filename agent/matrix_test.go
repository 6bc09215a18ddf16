package agent_test

import (
	"flag"
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"net/http"
	"os"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/balena-injector/injector/agent"
	"github.com/balena-injector/injector/balena/balenatest"
	"github.com/balena-injector/injector/internal/tally"
)

var updateGolden = flag.Bool("update", false, "write testdata/matrix.golden anew")

const (
	goldenFile = "testdata/matrix.golden"
	// matrixCells is how many cells the matrix has. It may grow.
	matrixCells = 975
	// raceShare: with the race detector one cell in so many is lived through; make test runs all of
	// them without it.
	raceShare = 4
)

// row is a request of the agent's life, and when the fault begins to wait for it.
type row struct {
	name  string
	kind  string
	match func(balenatest.Match) bool
	cold  bool // from the start; otherwise ten minutes into a healthy life
}

// failure is a way to fail.
type failure struct {
	name  string
	fault balenatest.Fault
	wait  time.Duration // what the server asked for, jitter included: recovery may take that much longer
	down  bool          // after that request the server has no database: every credential gets 401
}

// span is how long it lasts.
type span struct {
	name  string
	times int
	long  time.Duration
}

func rows() []row {
	one := func(m balenatest.Match) bool { return strings.Contains(m.Path, "(") }
	list := func(m balenatest.Match) bool { return !one(m) }
	return []row{
		{"first login", "login", nil, true}, {"first code", "totp", nil, true}, {"first mint", "mint", nil, true},
		{"first verification", "verify", nil, true}, {"first find", "find", list, true},
		{"refresh", "refresh", nil, false}, {"fresh login", "fresh", nil, false}, {"mint", "mint", nil, false},
		{"verification", "verify", nil, false}, {"find", "find", list, false}, {"read-back", "find", one, false},
		{"extension", "extend", nil, false}, {"revocation", "revoke", nil, false},
	}
}

func failures() []failure {
	const minute = time.Minute
	wait := func(value string) http.Header { return http.Header{"Retry-After": {value}} }
	html := http.Header{"Content-Type": {"text/html"}}
	return []failure{
		{"401", balenatest.Fault{Status: 401}, 0, false},
		{"401 fresh login required", balenatest.Fault{Status: 401, Body: `"Fresh authentication token required"`}, 0, false},
		{"401 without a database", balenatest.Fault{Pass: true, After: true}, 0, true},
		{"403", balenatest.Fault{Status: 403}, 0, false},
		{"404", balenatest.Fault{Status: 404}, 0, false},
		{"409", balenatest.Fault{Status: 409, Body: `"\"key\" must be unique."`}, 0, false},
		{"429 with seconds", balenatest.Fault{Status: 429, Header: wait("20")}, minute, false},
		{"429 with a date", balenatest.Fault{Status: 429, Later: 30 * time.Second}, 2 * minute, false},
		{"429 absurd", balenatest.Fault{Status: 429, Header: wait("99999999999")}, 61 * minute, false},
		{"500", balenatest.Fault{Status: 500}, 0, false},
		{"502 page", balenatest.Fault{Status: 502, Body: "<html>Bad Gateway", Header: html}, 0, false},
		{"503", balenatest.Fault{Status: 503}, 0, false},
		{"503 with a wait", balenatest.Fault{Status: 503, Header: wait("30")}, minute, false},
		{"521", balenatest.Fault{Status: 521}, 0, false},
		{"silence", balenatest.Fault{Hang: true}, 20 * time.Second, false},
		{"reset before", balenatest.Fault{}, 0, false},
		{"reset after", balenatest.Fault{After: true}, 0, false},
		{"slow-loris", balenatest.Fault{After: true, Pass: true, Slow: 3 * time.Second}, 20 * time.Second, false},
		{"cut short", balenatest.Fault{After: true, Pass: true, Cut: 4}, 0, false},
		{"garbage", balenatest.Fault{Status: 200, Body: "garbage"}, 0, false},
		{"empty", balenatest.Fault{Status: 200}, 0, false},
		{"oversized", balenatest.Fault{Status: 200, Body: strings.Repeat("x", 300<<10)}, 0, false},
		{"redirect", balenatest.Fault{Status: 302, Header: http.Header{"Location": {"/elsewhere"}}}, 0, false},
		{"200 that did nothing", balenatest.Fault{Hollow: true}, 0, false},
		{"effect a second later", balenatest.Fault{Late: time.Second}, 0, false},
	}
}

func spans() []span {
	return []span{{name: "once", times: 1}, {name: "for a minute", long: time.Minute}, {name: "past the expiry", long: 40 * time.Minute}}
}

// TestFaultMatrix lets every request fail in every way for every time.
func TestFaultMatrix(t *testing.T) {
	golden := loadGolden(t)
	var mu sync.Mutex
	seen := map[string][]string{}
	cells, lived, hits := 0, 0, 0
	t.Run("cells", func(t *testing.T) {
		for _, r := range rows() {
			for _, f := range failures() {
				for _, s := range spans() {
					cells++
					if raceEnabled && cells%raceShare != 0 {
						continue
					}
					lived++
					name := strings.ReplaceAll(r.name+"/"+f.name+"/"+s.name, " ", "-")
					t.Run(name, func(t *testing.T) {
						t.Parallel()
						tally.Add("cells of the fault matrix", 1)
						lines, hit := runCell(t, name, r, f, s)
						mu.Lock()
						defer mu.Unlock()
						seen[name] = lines
						if hit {
							hits++
						}
						if want := golden[name]; !*updateGolden && !slices.Equal(lines, want) {
							t.Errorf("the log has changed (run with -update if that is meant)\nwas:\n%s\nis:\n%s",
								strings.Join(want, "\n"), strings.Join(lines, "\n"))
						}
					})
				}
			}
		}
	})
	t.Logf("%d cells, %d of them lived through, %d hit", cells, lived, hits)
	if cells < matrixCells || hits < lived || lived < cells/raceShare {
		t.Errorf("%d cells, %d of them lived through, %d hit; there were %d cells", cells, lived, hits, matrixCells)
	}
	if *updateGolden {
		saveGolden(t, seen)
	}
}

// runCell lives through one cell and returns what the log said.
func runCell(t *testing.T, name string, r row, f failure, s span) (lines []string, hit bool) {
	opts := balenatest.Options{SessionLife: 80 * time.Minute}
	inWorld(t, opts, func(w *world) {
		seed := fnv.New64a()
		_, _ = seed.Write([]byte(name))
		w.random = rand.New(rand.NewPCG(seed.Sum64(), 1)).Float64
		w.times = agent.Times{TTL: 30 * time.Minute, MaxTTL: time.Hour, Overlap: time.Minute, Check: 5 * time.Minute}
		if r.kind == "refresh" {
			w.times.MaxTTL = 0 // a rotation would renew the session before
		}
		if r.kind == "totp" {
			u := w.server.AddUser("careful", "careful password", "JBSWY3DPEHPK3PXP")
			w.usePassword(u.Name, u.Password)
			w.creds.TOTP = secretSource(u.TOTPSecret)
		}
		fault := f.fault
		fault.Kind, fault.Match, fault.Times, fault.For = r.kind, r.match, s.times, s.long
		var state func() (int, time.Time)
		if r.cold {
			state = w.server.Fail(fault)
		}
		l := w.run()
		c := &cell{w: w, l: l}
		if !r.cold {
			c.live(10 * time.Minute)
			state = w.server.Fail(fault)
		}
		for n, _ := state(); n == 0 && c.age < 5*time.Hour; n, _ = state() {
			c.live(time.Second)
		}
		n, end := state()
		if hit = n > 0; !hit {
			t.Error("the fault never hit")
		}
		if f.down {
			end = c.withoutDatabase(max(s.long, 5*time.Second))
		}
		for time.Now().Before(end) {
			c.live(5 * time.Second)
		}
		limit := 90*time.Second + f.wait
		if f.fault.Status == 401 && !f.down && (r.kind == "login" || r.kind == "totp" || r.kind == "fresh") {
			limit += time.Hour // a refused credential rests
		}
		if f.fault.Hollow && r.kind == "mint" {
			limit += 7 * time.Minute // a new key that is refused gets a minute, and each one costs many requests
		}
		if f.fault.Status == 401 && !f.down && r.kind == "verify" && r.cold && s.long > time.Hour/2 {
			limit += 7 * time.Minute // likewise
		}
		if f.down && s.long > time.Hour/2 {
			limit += time.Minute // each try then takes several requests, of which few are left
		}
		c.recover(limit)
		c.live(10 * time.Minute)
		w.server.Heal()
		if f.wait < time.Hour {
			c.quiet()
		}
		lines = digest(w.log.String())
		c.wantFewLines(lines, s)
		l.endWell()
	})
	return lines, hit
}

// cell watches one life.
type cell struct {
	w         *world
	l         *life
	age       time.Duration
	published bool
	// stale is for how long the app has had a refused token while there was a good one
	stale time.Duration
	// unready is for how long the agent has been ready with a token that the server refuses
	unready time.Duration
}

// live lets time pass and looks all the while.
func (c *cell) live(d time.Duration) {
	c.w.t.Helper()
	for d > 0 {
		step := min(d, 5*time.Second)
		c.w.sleep(step)
		d -= step
		c.age += step
		c.look()
	}
}

// look checks what must hold at any instant.
func (c *cell) look() {
	c.w.t.Helper()
	live := c.w.server.Live()
	if len(live) > 2 {
		c.w.t.Fatalf("%d keys are live after %v", len(live), c.age)
	}
	raw, err := os.ReadFile(c.w.token())
	if err != nil {
		if c.published {
			c.w.t.Fatalf("the app's file is gone after %v", c.age)
		}
		return
	}
	c.published = true
	tally.Add("reads by apps", 1)
	known := slices.ContainsFunc(c.w.server.All(), func(k balenatest.Key) bool { return k.Secret == string(raw) })
	if len(raw) != 32 || !known && len(live) > 0 {
		tally.Add("bad reads", 1)
		c.w.t.Fatalf("the app reads %d bytes that are no key of ours", len(raw))
	}
	coming := c.l.agent.Status().Coming
	if !c.w.server.Accepts(string(raw)) && coming != nil && coming.Verified &&
		slices.ContainsFunc(live, func(k balenatest.Key) bool { return k.Name == coming.Name }) {
		if c.stale += 5 * time.Second; c.stale > 15*time.Second {
			c.w.t.Fatalf("the app has had a refused token for %v, and there is a good one", c.stale)
		}
	} else {
		c.stale = 0
	}
	if ready, _ := c.l.agent.Ready(); ready && !c.w.server.Accepts(string(raw)) {
		// The agent may be late by one check, and must not be later.
		if c.unready += 5 * time.Second; c.unready > 6*time.Minute {
			c.w.t.Fatalf("ready for %v with a token that the server refuses", c.unready)
		}
		return
	}
	c.unready = 0
}

// recover waits until the app has a good token and the agent is ready.
func (c *cell) recover(limit time.Duration) {
	c.w.t.Helper()
	for waited := time.Duration(0); waited <= limit; waited += time.Second {
		if ready, _ := c.l.agent.Ready(); ready && c.w.server.Accepts(c.w.read()) {
			return
		}
		c.live(time.Second)
	}
	ready, why := c.l.agent.Ready()
	c.w.t.Errorf("not recovered %v after the failure's end: ready %v (%s), token good %v, trouble %+v", limit, ready, why,
		c.w.server.Accepts(c.w.read()), c.l.agent.Status().Trouble)
}

// withoutDatabase takes it away for so long, and returns when it came back.
func (c *cell) withoutDatabase(d time.Duration) time.Time {
	c.w.t.Helper()
	c.w.server.Heal()
	c.w.server.SetDown(true)
	c.live(d)
	c.w.server.SetDown(false)
	return time.Now()
}

// quiet checks that nothing is in trouble any more: what could not be revoked is, and one key is
// live.
func (c *cell) quiet() {
	c.w.t.Helper()
	for range 90 {
		if s := c.l.agent.Status(); len(s.Trouble) == 0 && len(s.Old) == 0 && s.Coming == nil {
			break
		}
		c.live(5 * time.Second)
	}
	if s := c.l.agent.Status(); len(s.Trouble) != 0 {
		c.w.t.Errorf("still in trouble: %+v", s.Trouble)
	}
	c.w.wantLive(1)
}

// wantFewLines checks that a failure does not fill the log: a line a minute, and a few for what
// changes.
func (c *cell) wantFewLines(lines []string, s span) {
	c.w.t.Helper()
	warnings := strings.Count(c.w.log.String(), "level=WARN") + strings.Count(c.w.log.String(), "level=ERROR")
	if limit := int(max(s.long, 10*time.Minute)/time.Minute) + 12; warnings > limit {
		c.w.t.Errorf("%d warnings, not at most %d:\n%s", warnings, limit, strings.Join(lines, "\n"))
	}
}

var (
	logLine = regexp.MustCompile(`level=(WARN|ERROR) msg="?([^"]*?)"?(?: error="?(.*?)"?)?(?: next_try_in=.*| name=.*)?$`)
	varying = regexp.MustCompile(`test-[0-9a-f]+|[0-9]+(\.[0-9]+)?(ms|s|m|h)[0-9hms.]*|\bid=[0-9]+`)
)

// digest returns the warnings and errors of a log without what differs from run to run, each kind
// once, in the order of the first.
func digest(log string) []string {
	var lines []string
	for line := range strings.Lines(log) {
		m := logLine.FindStringSubmatch(strings.TrimSpace(line))
		if m == nil {
			continue
		}
		text := m[1] + " " + m[2]
		if m[3] != "" {
			text += ": " + m[3]
		}
		text = varying.ReplaceAllString(text, "…")
		if !slices.Contains(lines, text) {
			lines = append(lines, text)
		}
	}
	return lines
}

func loadGolden(t *testing.T) map[string][]string {
	raw, err := os.ReadFile(goldenFile)
	if err != nil && !*updateGolden {
		t.Fatal(err)
	}
	golden := map[string][]string{}
	name := ""
	for line := range strings.Lines(string(raw)) {
		line = strings.TrimRight(line, "\n")
		if rest, ok := strings.CutPrefix(line, "  "); ok {
			golden[name] = append(golden[name], rest)
		} else if line != "" {
			name = line
		}
	}
	return golden
}

func saveGolden(t *testing.T, seen map[string][]string) {
	var out strings.Builder
	names := make([]string, 0, len(seen))
	for name := range seen {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		_, _ = fmt.Fprintln(&out, name)
		for _, line := range seen[name] {
			_, _ = fmt.Fprintln(&out, "  "+line)
		}
	}
	if err := os.MkdirAll("testdata", 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(goldenFile, []byte(out.String()), 0o644); err != nil {
		t.Fatal(err)
	}
}
