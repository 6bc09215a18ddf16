package main

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/balena-injector/injector/balena/balenatest"
	"github.com/balena-injector/injector/internal/tally"
	"github.com/balena-injector/injector/key"
)

// newKeysStage is a stage with two keys: a user's, and a fleet's.
func newKeysStage(t *testing.T) *stage {
	s := newStage(t, balenatest.Options{ListsAll: true})
	delete(s.env, "INJECTOR_OUTPUT")
	s.set("INJECTOR_KEYS", "deploy,fleet", "INJECTOR_DEPLOY_OUTPUT", filepath.Join(s.dir, "deploy"), "INJECTOR_FLEET_OUTPUT",
		filepath.Join(s.dir, "fleet"), "INJECTOR_FLEET_KIND", "fleet", "INJECTOR_FLEET_TARGET", s.server.DefaultFleet().Slug,
		"INJECTOR_FLEET_TTL", "20m")
	return s
}

func (s *stage) reads(name string) string {
	raw, _ := os.ReadFile(filepath.Join(s.dir, name))
	return string(raw)
}

func (s *stage) stopAll(p *proc) {
	s.t.Helper()
	p.signal(syscall.SIGTERM)
	if code := p.wait(10 * time.Second); code != 0 {
		s.t.Errorf("exit %d", code)
	}
	s.wantLive(0)
}

func TestSeveralKeys(t *testing.T) {
	t.Parallel()
	s := newKeysStage(t)
	s.want(0, "init")
	p := s.start("run")
	s.ready()
	kinds := map[key.Kind]time.Duration{}
	for _, k := range s.server.Live() {
		kinds[k.Kind] = time.Until(k.Expiry).Round(time.Minute)
		if s.reads("deploy") != k.Secret && s.reads("fleet") != k.Secret {
			t.Errorf("nobody reads %s", k.Name)
		}
	}
	// What init makes lives for a quarter of an hour at most: the 20 min of the fleet's key begin with its extension.
	if len(kinds) != 2 || kinds[key.User] != 10*time.Minute || kinds[key.Fleet] != 15*time.Minute {
		t.Errorf("live: %v", kinds)
	}
	if n := s.server.Count("login"); n > 2 { // one for init, one for run
		t.Errorf("%d logins for one credential", n)
	}
	r := s.report()
	if len(r.Keys) != 2 || r.Keys[0].Name != "deploy" || !r.Keys[1].Ready {
		t.Errorf("report: %+v", r)
	}
	contains(t, s.want(0, "status"), "deploy", "fleet")
	contains(t, s.want(0, "explain"), "For deploy:", "For fleet:")
	s.stopAll(p)
}

func TestOneKeysTroubleIsItsOwn(t *testing.T) {
	t.Parallel()
	s := newKeysStage(t)
	other := s.server.AddUser("another", "another password", "")
	// The fleet's key has a credential that is refused, and the third no directory.
	s.set("INJECTOR_KEYS", "deploy,fleet,third", "INJECTOR_FLEET_USERNAME", other.Name, "INJECTOR_FLEET_PASSWORD", "wrong",
		"INJECTOR_THIRD_OUTPUT", filepath.Join(s.dir, "no", "where"))
	p := s.start("run")
	s.eventually("the good key", func() bool { return s.server.Accepts(s.reads("deploy")) })
	s.eventually("the others' trouble", func() bool {
		return strings.Contains(p.stderr.String(), "INJECTOR_FLEET_PASSWORD") && strings.Contains(p.stderr.String(), "does not exist")
	})
	code, out := s.do("healthcheck")
	if code != 1 || !strings.Contains(out, "fleet: ") && !strings.Contains(out, "third: ") {
		t.Errorf("healthcheck: exit %d: %s", code, out)
	}
	s.stopAll(p)
}

func TestOwnCredentials(t *testing.T) {
	t.Parallel()
	s := newKeysStage(t)
	other := s.server.AddUser("another", "another password", "")
	fleet := s.server.AddFleet(other, "acme/other")
	file := filepath.Join(s.dir, "password")
	writeFile(t, file, other.Password)
	s.set("INJECTOR_FLEET_USERNAME", other.Name, "INJECTOR_FLEET_PASSWORD_FILE", file, "INJECTOR_FLEET_TARGET", fleet.Slug)
	p := s.start("run")
	s.ready()
	owners := map[int64]bool{}
	for _, k := range s.server.Live() {
		owners[k.Owner] = true
	}
	if len(owners) != 2 {
		t.Errorf("%d accounts have keys", len(owners))
	}
	s.stopAll(p)
}

func TestAKeyThatIsNotConfiguredAnyMore(t *testing.T) {
	t.Parallel()
	s := newKeysStage(t)
	p := s.start("run")
	s.ready()
	p.signal(syscall.SIGQUIT)
	p.wait(5 * time.Second)
	s.wantLive(2)
	s.set("INJECTOR_KEYS", "deploy")
	for _, name := range []string{"INJECTOR_FLEET_OUTPUT", "INJECTOR_FLEET_KIND", "INJECTOR_FLEET_TARGET", "INJECTOR_FLEET_TTL"} {
		delete(s.env, name)
	}
	p = s.start("run")
	s.ready()
	s.eventually("the other's end", func() bool { return len(s.server.Live()) == 1 })
	s.eventually("its file's end", func() bool { return s.reads("fleet") == "" && s.reads("fleet.json") == "" })
	if !s.server.Accepts(s.reads("deploy")) {
		t.Error("the other key's file is gone")
	}
	if n := s.server.Count("mint"); n != 2 {
		t.Errorf("%d mints", n)
	}
	s.stopAll(p)
}

func TestSeveralKeysShareOneStop(t *testing.T) {
	t.Parallel()
	s := newKeysStage(t)
	s.set("INJECTOR_SHUTDOWN_TIMEOUT", "2s")
	p := s.start("run")
	s.ready()
	live := s.server.Live()
	s.server.Fail(balenatest.Fault{Hang: true})
	began := time.Now()
	p.signal(syscall.SIGTERM)
	if code := p.wait(6 * time.Second); code != int(exitLeft) {
		t.Errorf("exit %d", code)
	}
	if took := time.Since(began); took > tally.Slow(4*time.Second) {
		t.Errorf("it took %v", took)
	}
	for _, k := range live {
		contains(t, p.stderr.String(), k.Name)
	}
	s.server.Heal()
	s.want(0, "revoke")
	s.wantLive(0)
}

func TestMistakesWithSeveralKeys(t *testing.T) {
	for _, c := range []struct {
		set  []string
		says []string
	}{
		{[]string{"INJECTOR_KEYS", "Deploy"}, []string{"INJECTOR_KEYS", "lower case"}},
		{[]string{"INJECTOR_KEYS", "deploy,deploy"}, []string{"INJECTOR_KEYS", "twice"}},
		{[]string{"INJECTOR_KEYS", "max"}, []string{"INJECTOR_KEYS", "another name"}},
		{[]string{"INJECTOR_KEYS", ","}, []string{"INJECTOR_KEYS", "names no key"}},
		{[]string{"INJECTOR_DEPLOY_TTL", "5"}, []string{"INJECTOR_DEPLOY_TTL", "unit"}},
		{[]string{"INJECTOR_DEPLY_TTL", "5m"}, []string{"INJECTOR_DEPLY_TTL", "did you mean INJECTOR_DEPLOY_TTL?"}},
		{[]string{"INJECTOR_FLEET_OUTPUT", "/secrets/deploy", "INJECTOR_DEPLOY_OUTPUT", "/secrets/deploy"},
			[]string{"INJECTOR_FLEET_OUTPUT", "/secrets/deploy twice"}},
		{[]string{"INJECTOR_DEPLOY_USERNAME", "x"}, []string{"INJECTOR_DEPLOY_PASSWORD", "missing"}},
		{[]string{"INJECTOR_OUTPUT", "/secrets/x"}, []string{"INJECTOR_OUTPUT", "each key has its own", "INJECTOR_DEPLOY_OUTPUT"}},
		{[]string{"INJECTOR_DEPLOY_OUTPUT", "none"}, []string{"INJECTOR_DEPLOY_OUTPUT", "no templates"}},
	} {
		t.Run(strings.Join(c.set, " "), func(t *testing.T) {
			s := newKeysStage(t)
			s.set(c.set...)
			contains(t, s.want(2, "check"), c.says...)
			if n := s.server.Count(""); n != 0 {
				t.Errorf("%d requests", n)
			}
		})
	}
}

// TestManyKeys has a thousand of them, which share a session and a few connections.
func TestManyKeys(t *testing.T) {
	t.Parallel()
	const keys = 1000
	s := newStage(t, balenatest.Options{})
	delete(s.env, "INJECTOR_OUTPUT")
	s.set("INJECTOR_TTL", "1h", "INJECTOR_LOG_LEVEL", "error", "INJECTOR_SHUTDOWN_TIMEOUT", "10m", "INJECTOR_REQUESTS_PER_MINUTE", "10000")
	var names []string
	for i := range keys {
		name := "k" + itoa(i)
		names = append(names, name)
		s.set("INJECTOR_"+strings.ToUpper(name)+"_OUTPUT", filepath.Join(s.dir, name))
	}
	s.set("INJECTOR_KEYS", strings.Join(names, ","))
	s.set("INJECTOR_STATE_DIR", filepath.Join(s.dir, ".injector"))
	p := s.start("run")
	s.ready()
	for _, name := range names {
		if !s.server.Accepts(s.reads(name)) {
			t.Fatalf("%s is not a good token", name)
		}
	}
	if mints, logins := s.server.Count("mint"), s.server.Count("login"); mints != keys || logins != 1 {
		t.Errorf("%d mints, %d logins", mints, logins)
	}
	p.signal(syscall.SIGTERM)
	if code := p.wait(3 * time.Minute); code != 0 {
		t.Errorf("exit %d", code)
	}
	// However slow the machine is: with the race detector it takes some ten times as much as without.
	if state := p.cmd.ProcessState; state.UserTime()+state.SystemTime() > time.Minute {
		t.Errorf("%v of processor time", state.UserTime()+state.SystemTime())
	}
	s.wantLive(0)
}

// TestAKeyThatCannotBeginIsRevokedAtTheStop has lost its directory between two starts.
func TestAKeyThatCannotBeginIsRevokedAtTheStop(t *testing.T) {
	t.Parallel()
	s := newKeysStage(t)
	place := filepath.Join(s.dir, "place")
	if err := os.Mkdir(place, 0o700); err != nil {
		t.Fatal(err)
	}
	s.set("INJECTOR_FLEET_OUTPUT", filepath.Join(place, "fleet"))
	s.want(0, "init")
	s.wantLive(2)
	if err := os.RemoveAll(place); err != nil {
		t.Fatal(err)
	}
	p := s.start("run")
	s.eventually("the complaint", func() bool { return strings.Contains(p.stderr.String(), "this key cannot be kept") })
	s.stopAll(p)
}

// TestHandOverOfAKeyThatCannotBegin leaves it to the next start, as SIGQUIT asks.
func TestHandOverOfAKeyThatCannotBegin(t *testing.T) {
	t.Parallel()
	s := newKeysStage(t)
	place := filepath.Join(s.dir, "place")
	if err := os.Mkdir(place, 0o700); err != nil {
		t.Fatal(err)
	}
	delete(s.env, "INJECTOR_FLEET_TARGET")
	s.set("INJECTOR_FLEET_OUTPUT", filepath.Join(place, "fleet"), "INJECTOR_FLEET_KIND", "user")
	s.want(0, "init")
	s.wantLive(2)
	if err := os.Rename(place, place+".away"); err != nil {
		t.Fatal(err)
	}
	p := s.start("run")
	s.eventually("the complaint", func() bool { return strings.Contains(p.stderr.String(), "this key cannot be kept") })
	p.signal(syscall.SIGQUIT)
	p.wait(8 * time.Second)
	s.wantLive(2)
	if err := os.Rename(place+".away", place); err != nil {
		t.Fatal(err)
	}
	s.want(0, "revoke")
	s.wantLive(0)
}

// TestAnInitThatFailsTakesBackWhatItMade has two keys, one of which is for a fleet that there is not.
func TestAnInitThatFailsTakesBackWhatItMade(t *testing.T) {
	t.Parallel()
	s := newKeysStage(t)
	s.set("INJECTOR_FLEET_TARGET", "acme/none")
	contains(t, s.want(1, "init"), "check INJECTOR_FLEET_TARGET", "taking this one back")
	s.wantLive(0)
}

// TestTwoSessionsHaveACacheEach are of two users, and are refreshed.
func TestTwoSessionsHaveACacheEach(t *testing.T) {
	t.Parallel()
	s := newKeysStage(t)
	other := s.server.AddUser("another", "another password", "")
	fleet := s.server.AddFleet(other, "acme/other")
	delete(s.env, "BALENA_USERNAME")
	delete(s.env, "BALENA_PASSWORD")
	cache, old := memoryDir(t), 84*time.Hour+time.Minute // half of a session's life
	s.set("INJECTOR_DEPLOY_KIND", "fleet", "INJECTOR_DEPLOY_TARGET", s.server.DefaultFleet().Slug, "INJECTOR_DEPLOY_SESSION_TOKEN",
		s.server.Session(s.server.DefaultUser(), old), "INJECTOR_FLEET_TARGET", fleet.Slug, "INJECTOR_FLEET_SESSION_TOKEN",
		s.server.Session(other, old), "INJECTOR_SESSION_CACHE", filepath.Join(cache, "session"))
	p := s.start("run")
	s.ready()
	s.eventually("a file for each", func() bool {
		files, _ := filepath.Glob(filepath.Join(cache, "session-*"))
		return s.server.Count("refresh") >= 2 && len(files) == 2
	})
	p.signal(syscall.SIGTERM)
	p.wait(8 * time.Second)
	s.server.ShiftClock(5 * 24 * time.Hour) // the tokens that were given are over, the refreshed ones are not
	p = s.start("run")
	s.ready()
	p.signal(syscall.SIGTERM)
	p.wait(8 * time.Second)
	s.server.ShiftClock(6 * 24 * time.Hour) // fleet keys end by themselves
	s.wantLive(0)
}
