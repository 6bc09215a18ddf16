package main

import (
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/balena-injector/injector/balena/balenatest"
	"github.com/balena-injector/injector/internal/tally"
	"github.com/balena-injector/injector/key"
)

func TestInitRunStopAndAgain(t *testing.T) {
	t.Parallel()
	s := newStage(t, balenatest.Options{})
	for life := 1; life <= 2; life++ {
		s.want(0, "init")
		s.wantLive(1)
		info, err := os.Stat(s.token())
		if err != nil || info.Mode() != 0o440 || info.Size() != 32 {
			t.Fatalf("the token: %v, %v", info, err)
		}
		p := s.start("run")
		s.ready()
		p.stop()
		if n := s.server.Count("mint"); n != life {
			t.Errorf("%d mints in %d lives", n, life)
		}
	}
}

func TestKilledAndStartedAgain(t *testing.T) {
	t.Parallel()
	s := newStage(t, balenatest.Options{})
	var p *proc
	for n := range 20 {
		p = s.start("run")
		if n < 10 { // each of these asks whether the key lives; with many more the request budget is used up
			s.ready()
		}
		s.eventually("a key", func() bool {
			return strings.Contains(p.stderr.String(), "adopting the key") || len(s.server.Live()) == 1
		})
		p.signal(syscall.SIGKILL)
		p.wait(time.Second)
		s.wantLive(1)
	}
	p = s.start("run")
	s.ready()
	if n := s.server.Count("mint"); n != 1 {
		t.Errorf("%d mints", n)
	}
	p.stop()
}

func TestHandedOverAndAdopted(t *testing.T) {
	t.Parallel()
	s := newStage(t, balenatest.Options{})
	p := s.start("run")
	s.ready()
	token, _ := os.ReadFile(s.token())
	p.signal(syscall.SIGQUIT)
	if code := p.wait(5 * time.Second); code != 0 {
		t.Errorf("exit %d", code)
	}
	s.wantLive(1)
	p = s.start("run")
	s.ready()
	if again, _ := os.ReadFile(s.token()); string(again) != string(token) || s.server.Count("mint") != 1 {
		t.Error("the key was not adopted")
	}
	p.stop()
}

func TestStopWhileTheServerIsSilent(t *testing.T) {
	s := newStage(t, balenatest.Options{})
	s.set("INJECTOR_SHUTDOWN_TIMEOUT", "2s")
	p := s.start("run")
	s.ready()
	name := s.server.Live()[0].Name
	s.server.Fail(balenatest.Fault{Hang: true})
	began := time.Now()
	p.signal(syscall.SIGTERM)
	if code := p.wait(6 * time.Second); code != int(exitLeft) {
		t.Errorf("exit %d", code)
	}
	if took := time.Since(began); took > tally.Slow(4*time.Second) {
		t.Errorf("it took %v", took)
	}
	contains(t, p.stderr.String(), "left to expire", name)
	s.wantNoFile()
	s.server.Heal()
	s.want(0, "revoke")
	s.wantLive(0)
}

func TestASecondSignalEndsAtOnce(t *testing.T) {
	s := newStage(t, balenatest.Options{})
	p := s.start("run")
	s.ready()
	s.server.Fail(balenatest.Fault{Hang: true})
	p.signal(syscall.SIGTERM)
	s.eventually("the stop", func() bool { _, err := os.Stat(s.token()); return err != nil })
	began := time.Now()
	p.insist(syscall.SIGINT)
	if code := p.wait(5 * time.Second); code != int(exitLeft) || time.Since(began) > tally.Slow(2*time.Second) {
		t.Errorf("exit %d after %v", code, time.Since(began))
	}
	s.server.Heal()
	s.want(0, "revoke")
	s.wantLive(0)
}

func TestOneInjectorAtATime(t *testing.T) {
	t.Parallel()
	s := newStage(t, balenatest.Options{})
	s.set("INJECTOR_INIT_TIMEOUT", "1s")
	p := s.start("run")
	s.ready()
	contains(t, s.want(1, "run"), "another injector", s.stateDir(), "INJECTOR_STATE_DIR")
	contains(t, s.want(1, "revoke"), "another injector")
	s.wantLive(1)
	s.set("INJECTOR_INIT_TIMEOUT", "20s")
	next := s.start("run") // waits, and takes over
	s.eventually("waiting", func() bool { return strings.Contains(next.stderr.String(), "waiting for another") })
	p.signal(syscall.SIGQUIT)
	p.wait(5 * time.Second)
	s.ready()
	if n := s.server.Count("mint"); n != 1 {
		t.Errorf("%d mints", n)
	}
	next.stop()
}

func TestCredentialFiles(t *testing.T) {
	t.Parallel()
	s := newStage(t, balenatest.Options{})
	u := s.server.DefaultUser()
	file := filepath.Join(s.dir, "password")
	writeFile(t, file, "wrong\n")
	delete(s.env, "BALENA_PASSWORD")
	s.set("BALENA_PASSWORD_FILE", file)
	p := s.start("run")
	s.eventually("the refusal", func() bool { return strings.Contains(p.stderr.String(), "not accepted") })
	contains(t, p.stderr.String(), "BALENA_PASSWORD_FILE")
	if code, out := s.do("healthcheck"); code != 1 || !strings.Contains(out, "no key yet") {
		t.Errorf("healthcheck: exit %d: %s", code, out)
	}
	writeFile(t, file, u.Password+"\n")
	s.ready()
	p.stop()
}

func TestASecretVolumeIsSwapped(t *testing.T) {
	t.Parallel()
	s := newStage(t, balenatest.Options{})
	u := s.server.DefaultUser()
	volume := filepath.Join(s.dir, "volume")
	for dir, password := range map[string]string{"..1": "wrong", "..2": u.Password} {
		if err := os.MkdirAll(filepath.Join(volume, dir), 0o700); err != nil {
			t.Fatal(err)
		}
		writeFile(t, filepath.Join(volume, dir, "password"), password)
	}
	swap := func(to string) {
		if err := errors.Join(os.Symlink(to, filepath.Join(volume, "..tmp")), os.Rename(filepath.Join(volume, "..tmp"),
			filepath.Join(volume, "..data"))); err != nil {
			t.Fatal(err)
		}
	}
	swap("..1")
	if err := os.Symlink("..data/password", filepath.Join(volume, "password")); err != nil {
		t.Fatal(err)
	}
	delete(s.env, "BALENA_PASSWORD")
	s.set("BALENA_PASSWORD_FILE", filepath.Join(volume, "password"))
	p := s.start("run")
	s.eventually("the refusal", func() bool { return strings.Contains(p.stderr.String(), "not accepted") })
	swap("..2")
	s.ready()
	p.stop()
}

func TestHangupAndALostLogReader(t *testing.T) {
	s := newStage(t, balenatest.Options{})
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	p := s.start("init")
	p.wait(5 * time.Second)
	cmd := exec.Command(os.Args[0], "run")
	cmd.Env = append(p.cmd.Env, "INJECTOR_CHECK_INTERVAL=1s")
	cmd.Stderr, cmd.Stdout = w, w
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	_, _ = w.Close(), r.Close()
	s.ready()
	for range 3 {
		if err := cmd.Process.Signal(syscall.SIGHUP); err != nil {
			t.Fatal(err)
		}
		time.Sleep(50 * time.Millisecond) // let each be a signal of its own
	}
	s.ready()
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Errorf("the end: %v", err)
	}
	s.wantLive(0)
}

func TestQuestionsToARunningAgent(t *testing.T) {
	t.Parallel()
	s := newStage(t, balenatest.Options{})
	contains(t, s.want(1, "healthcheck"), "no injector is running")
	contains(t, s.want(1, "status"), "no injector is running")
	contains(t, s.want(0, "explain"), "With this configuration", "10m")
	listen := freeAddress(t)
	s.set("INJECTOR_LISTEN", listen)
	p := s.start("run")
	s.ready()
	s.want(0, "healthcheck")
	s.want(0, "healthcheck", "--live")
	contains(t, s.want(0, "status"), "ready", "yes", "injector-", "extension", s.token())
	contains(t, s.want(0, "explain"), "will be extended in", "Another key will take its place", "If the API went away now")
	r := s.report()
	if k := r.Keys[0]; !r.Ready || !k.Ready || k.Key == nil || k.Key.ID == 0 || k.Generation != 1 || k.Counts.Mints != 1 ||
		k.SessionExpiry.IsZero() {
		t.Errorf("report: %+v", r)
	}
	if code, body := get(t, "http://"+listen+"/readyz"); code != 200 {
		t.Errorf("readyz: %d %s", code, body)
	}
	if code, _ := get(t, "http://"+listen+"/livez"); code != 200 {
		t.Errorf("livez: %d", code)
	}
	if code, _ := get(t, "http://"+listen+"/status"); code != 404 {
		t.Errorf("the status is for the socket: %d", code)
	}
	_, metrics := get(t, "http://"+listen+"/metrics")
	contains(
		t,
		metrics,
		"\ninjector_ready 1\n",
		"\ninjector_live_keys 1\n",
		`injector_requests_total{kind="mint",class="ok"} 1`,
		"\ninjector_mints_total 1\n",
	)
	token, _ := os.ReadFile(s.token())
	for _, text := range []string{metrics, s.log.String()} {
		if strings.Contains(text, string(token)) {
			t.Error("the token is shown")
		}
	}
	s.eventually("a directory in its place, so that it cannot be written again", func() bool {
		_ = os.Remove(s.token())
		return os.Mkdir(s.token(), 0o700) == nil
	})
	code, out := s.do("healthcheck")
	if code != 1 || !strings.Contains(out, "missing or is not what was written") {
		t.Errorf("without its file: exit %d: %s", code, out)
	}
	if err := os.Remove(s.token()); err != nil {
		t.Fatal(err)
	}
	p.stop()
	contains(t, s.want(1, "healthcheck"), "no injector is running")
}

func TestALongStateDirectory(t *testing.T) {
	t.Parallel()
	s := newStage(t, balenatest.Options{})
	deep := filepath.Join(s.dir, strings.Repeat("d", 60), strings.Repeat("e", 60))
	if err := os.MkdirAll(deep, 0o700); err != nil {
		t.Fatal(err)
	}
	s.set("INJECTOR_STATE_DIR", filepath.Join(deep, "state"))
	p := s.start("run")
	s.ready()
	s.want(0, "healthcheck")
	p.stop()
}

func TestAnotherUserIsToldWhoToBe(t *testing.T) {
	t.Parallel()
	if os.Getuid() != 0 {
		t.Fatal("changing users takes root")
	}
	s := newStage(t, balenatest.Options{})
	p := s.start("run")
	s.ready()
	if err := os.Chmod(s.dir, 0o755); err != nil {
		t.Fatal(err)
	}
	binary := filepath.Join(s.dir, "injector.test")
	copyFile(t, os.Args[0], binary)
	var out []byte
	err := error(syscall.ETXTBSY)
	for errors.Is(err, syscall.ETXTBSY) { // another test forked while the copy was open for writing
		cmd := exec.Command(binary, "healthcheck")
		cmd.Env = append([]string{}, p.cmd.Env...)
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 4321, Gid: 4321}}
		out, err = cmd.CombinedOutput()
	}
	if err == nil {
		t.Error("it was let in")
	}
	contains(t, string(out), "run this command as uid 0")
	p.stop()
}

func TestRevokeExpired(t *testing.T) {
	t.Parallel()
	s := newStage(t, balenatest.Options{})
	u := s.server.DefaultUser()
	old := s.server.AddKey(u, key.Draft("injector", key.User, 1, time.Now()).Name, time.Now().Add(-8*24*time.Hour))
	young := s.server.AddKey(u, key.Draft("injector", key.User, 1, time.Now()).Name, time.Now().Add(-6*24*time.Hour))
	p := s.start("run")
	s.ready()
	p.signal(syscall.SIGQUIT)
	p.wait(5 * time.Second)
	s.want(0, "revoke", "--expired")
	s.wantLive(0)
	s.wantNoFile()
	for _, k := range s.server.All() {
		if k.ID == old.ID {
			t.Error("the old one is left")
		}
	}
	if !s.server.DeleteKey(young.ID) {
		t.Error("the young one is gone")
	}
}

func TestAFleetKey(t *testing.T) {
	t.Parallel()
	s := newStage(t, balenatest.Options{})
	user := s.server.AddKey(s.server.DefaultUser(), "by hand", time.Time{})
	file := filepath.Join(s.dir, "user-key")
	writeFile(t, file, user.Secret)
	delete(s.env, "BALENA_USERNAME")
	delete(s.env, "BALENA_PASSWORD")
	s.set("BALENA_API_KEY_FILE", file, "INJECTOR_KIND", "fleet", "INJECTOR_TARGET", s.server.DefaultFleet().Slug, "BALENA_API_KEY",
		"the platform's own")
	contains(t, s.want(0, "check"), "fleet acme/thermostat has id 103")
	p := s.start("run")
	s.ready()
	p.signal(syscall.SIGTERM)
	if code := p.wait(8 * time.Second); code != 0 {
		t.Errorf("exit %d", code)
	}
	contains(t, p.stderr.String(), "cannot be revoked", "next start adopts it")
	s.wantNoFile()
	p = s.start("run")
	s.ready()
	if n := s.server.Count("mint"); n != 1 {
		t.Errorf("%d mints", n)
	}
	p.signal(syscall.SIGTERM)
	p.wait(8 * time.Second)
}

func freeAddress(t *testing.T) string {
	t.Helper()
	srv := httptest.NewServer(http.NotFoundHandler())
	defer srv.Close()
	return strings.TrimPrefix(srv.URL, "http://")
}

func get(t *testing.T, url string) (int, string) {
	t.Helper()
	resp, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(body)
}

func copyFile(t *testing.T, from, to string) {
	t.Helper()
	data, err := os.ReadFile(from)
	if err == nil {
		err = os.WriteFile(to, data, 0o755)
	}
	if err != nil {
		t.Fatal(err)
	}
}
