package e2e

import (
	"os/exec"
	"regexp"
	"strings"
	"testing"
	"time"
)

var md5InLog = regexp.MustCompile(`md5 is (\w+)`) // what the examples' apps say

var publishedAt = regexp.MustCompile(`time=(\S+) level=INFO msg=published`)

// wantPromptStart holds the app's start against the injector's publication.
func (p *project) wantPromptStart(app string) {
	p.t.Helper()
	m := publishedAt.FindStringSubmatch(p.logs(p.service))
	if m == nil {
		p.t.Fatal("nothing was published")
	}
	published, err := time.Parse(time.RFC3339, m[1])
	if err != nil {
		p.t.Fatal(err)
	}
	after := p.started(app).Sub(published)
	p.t.Logf("%s started %v after the publication", app, after)
	// Two seconds lie between the health checks; the rest is the engine's, on a machine that may be busy.
	if after < 0 || after > 4*time.Second {
		p.t.Errorf("%s started %v after the publication, want 0 to 4 s", app, after)
	}
}

// Beside no other test: what is measured are a health check every 2 s, the engine and Compose.
func TestAppsStartPromptly(t *testing.T) {
	for _, file := range []string{"compose.yaml", "template.yaml", "notify.yaml", "command.yaml"} {
		t.Run(file, func(t *testing.T) {
			p := newProject(t, file, "injector")
			p.up()
			p.wantPromptStart("app")
		})
	}
}

func TestSidecar(t *testing.T) {
	t.Parallel()
	p := newProject(t, "compose.yaml", "injector")
	p.up()
	token := p.read("app", "/secrets/balena-token")
	p.wantAccepted(token)
	p.saysEventually("app", md5sum(token))
	if log := p.logs("app"); strings.Contains(log, "No such file") || strings.Contains(log, md5sum("")) {
		t.Error("the app started without a token:", log)
	}
	p.deleteKey(p.wantLive(1)[0].ID)
	p.eventually("another token", 20*time.Second, func() bool { return p.read("app", "/secrets/balena-token") != token })
	second := p.read("app", "/secrets/balena-token")
	p.wantAccepted(second)
	p.saysEventually("app", md5sum(second))
}

func TestRotation(t *testing.T) {
	t.Parallel()
	p := newProject(t, "compose.yaml", "injector")
	p.set["INJECTOR_TTL"], p.set["INJECTOR_MAX_TTL"], p.set["INJECTOR_OVERLAP"] = "12s", "14s", "2s"
	p.up()
	p.eventually("generation 3", time.Minute, func() bool {
		p.wantAccepted(p.read("app", "/secrets/balena-token"))
		return strings.Contains(p.read("app", "/secrets/balena-token.json"), `"generation":3`)
	})
}

func TestKillSidecarBesideApp(t *testing.T) {
	t.Parallel()
	p := newProject(t, "compose.yaml", "injector")
	p.up()
	key, token := p.wantLive(1)[0], p.read("app", "/secrets/balena-token")
	reads := p.readAllTheTime(token)
	defer func() { t.Logf("the app read its token %d times", reads()) }()
	for range 3 {
		sh(t, "docker", "kill", "-s", "KILL", p.container("injector"))
		if p.read("app", "/secrets/balena-token") != token {
			t.Fatal("the app lost its token")
		}
		p.up("injector")
		p.saysEventually("injector", "adopted")
	}
	if now := p.wantLive(1)[0]; now.Name != key.Name || p.read("app", "/secrets/balena-token") != token {
		t.Errorf("another key: %v after %v", now, key)
	}
}

// Before an app holds the volume, a kill takes the memory with it: what is left is one key, until its expiry.
func TestKillSidecarBeforeApp(t *testing.T) {
	t.Parallel()
	p := newProject(t, "compose.yaml", "injector")
	p.set["INJECTOR_TTL"] = "30s"
	p.up("injector")
	p.eventually("a key", 20*time.Second, func() bool { return len(p.live()) == 1 })
	left := p.wantLive(1)[0]
	sh(t, "docker", "kill", "-s", "KILL", p.container("injector"))
	p.up("app")
	p.wantAccepted(p.read("app", "/secrets/balena-token"))
	lives := time.Until(left.Expiry).Round(time.Second)
	t.Logf("left behind by the kill: %s, for another %v", left.Name, lives)
	if lives > 30*time.Second {
		t.Errorf("%v is longer than the TTL", lives)
	}
	p.eventually("the end of the key left behind", 35*time.Second, func() bool {
		live := p.live()
		return len(live) == 1 && live[0].ID != left.ID
	})
}

// One command, and then what anybody would do: another container in the place of the old one, and a plain restart.
func TestUpgradeSidecarBesideApp(t *testing.T) {
	t.Parallel()
	p := newProject(t, "compose.yaml", "injector")
	p.up()
	token, began, old := p.read("app", "/secrets/balena-token"), p.started("app"), p.container("injector")
	reads := p.readAllTheTime(token)
	handOver := func() { p.compose("exec", "-T", "injector", "/injector", "handover") }
	handOver()
	p.set["INJECTOR_LOG_FORMAT"] = "json" // another injector than before
	p.compose("up", "-d", "--no-deps", "injector")
	p.saysEventually("injector", "adopted")
	upgraded := p.container("injector")
	handOver()
	p.compose("restart", "injector")
	p.eventually("the restarted injector", 20*time.Second,
		func() bool { return strings.Count(p.logs("injector"), "adopting the key") == 2 })
	p.wantLive(1)
	if upgraded == old || p.container("injector") != upgraded || !p.started("app").Equal(began) {
		t.Error("the upgrade replaced nothing, or restarted the app")
	}
	if n := reads(); n < 10 {
		t.Errorf("the app read its token %d times", n)
	}
}

// readAllTheTime has the app read its token until the function is called that it returns, which tells how often. Each
// time it must be that token.
func (p *project) readAllTheTime(token string) (stop func() int) {
	p.t.Helper()
	ended, n := make(chan struct{}), make(chan int)
	go func() {
		for count := 0; ; count++ {
			select {
			case <-ended:
				n <- count
				return
			default:
			}
			if got, err := p.in("app", "cat /secrets/balena-token"); err != nil || got != token {
				p.t.Errorf("the app read %d bytes: %v", len(got), err)
			}
		}
	}()
	return func() int { close(ended); return <-n }
}

func TestRestartApp(t *testing.T) {
	t.Parallel()
	p := newProject(t, "compose.yaml", "injector")
	p.up()
	key, token := p.wantLive(1)[0], p.read("app", "/secrets/balena-token")
	p.compose("restart", "-t", "2", "app")
	sh(t, "docker", "kill", "-s", "KILL", p.container("app"))
	p.up("app")
	if p.read("app", "/secrets/balena-token") != token || p.wantLive(1)[0].ID != key.ID {
		t.Error("another key")
	}
}

func TestNetworkCut(t *testing.T) {
	t.Parallel()
	p := newProject(t, "compose.yaml", "injector")
	p.set["INJECTOR_TTL"] = "1m"
	p.up()
	token, net, server := p.read("app", "/secrets/balena-token"), p.name+"_default", p.container("standin")
	sh(t, "docker", "network", "disconnect", net, server)
	// Packets are lost, and nobody says so: a request waits for its own end, 20 s.
	p.eventually("a warning", 40*time.Second, func() bool { return strings.Contains(p.logs("injector"), "level=WARN") })
	if p.read("app", "/secrets/balena-token") != token {
		t.Error("the outage cost the token")
	}
	sh(t, "docker", "network", "connect", "--alias", "standin", net, server)
	before := p.wantLive(1)[0].Expiry
	p.eventually("an extension", 75*time.Second, func() bool {
		live := p.live()
		return len(live) == 1 && live[0].Expiry.After(before)
	})
	if p.read("app", "/secrets/balena-token") != token {
		t.Error("the outage cost the token")
	}
}

func TestWhatTheAppMayNot(t *testing.T) {
	t.Parallel()
	p := newProject(t, "compose.yaml", "injector")
	p.up()
	token := p.read("app", "/secrets/balena-token")
	for _, line := range []string{
		"echo x >/secrets/balena-token", "rm /secrets/balena-token", "ln -sf /etc/passwd /secrets/balena-token",
		"ln /secrets/balena-token /secrets/x",
		"touch /secrets/x", "mkdir /secrets/x", "chmod 0777 /secrets/balena-token", "ls /secrets/.injector",
		"cat /secrets/.injector/journal.json",
		"cat /run/secrets/balena_password", "mount -o remount,rw /secrets",
	} {
		if out, err := p.in("app", line); err == nil {
			t.Errorf("the app can %s: %s", line, out)
		}
	}
	if env := p.inspect("app", "{{.Config.Env}}"); strings.Contains(env, "BALENA") {
		t.Error("a credential in the app's environment:", env)
	}
	if p.read("app", "/secrets/balena-token") != token {
		t.Error("the app changed the token")
	}
}

// Any user and group, and a network that leads to the API alone.
func TestAnyUserWithoutOtherNetwork(t *testing.T) {
	t.Parallel()
	p := newProject(t, "compose.yaml", "injector")
	p.env["INJECTOR_UID"], p.env["APP_GID"] = "123456", "654321"
	p.extra = "networks: {default: {internal: true}}\n"
	p.up()
	p.wantAccepted(p.read("app", "/secrets/balena-token"))
	if out, err := p.in("app", "stat -c %u:%g:%a /secrets/balena-token"); out != "123456:654321:440" {
		t.Error(out, err)
	}
}

func TestTemplateExample(t *testing.T) {
	t.Parallel()
	p := newProject(t, "template.yaml", "injector")
	p.up()
	p.saysEventually("app", md5sum(p.read("app", "/secrets/app.conf")+"\n"))
	p.wantLive(1)
}

func TestNotifyExample(t *testing.T) {
	t.Parallel()
	p := newProject(t, "notify.yaml", "injector")
	p.up()
	p.deleteKey(p.wantLive(1)[0].ID)
	p.saysEventually("app", "told of generation 2")
	p.wantAccepted(p.read("app", "/secrets/balena-token"))
}

func TestCommandExample(t *testing.T) {
	t.Parallel()
	p := newProject(t, "command.yaml", "injector")
	p.up()
	p.deleteKey(p.wantLive(1)[0].ID)
	p.saysEventually("app", "told of generation 2")
}

func TestExecExample(t *testing.T) {
	t.Parallel()
	p := newProject(t, "exec.yaml", "app")
	p.up()
	p.saysEventually("app", "app: the token's md5 is ")
	p.eventually("health", 10*time.Second, func() bool { return p.inspect("app", "{{.State.Health.Status}}") == "healthy" })
	seen := func() string {
		all := md5InLog.FindAllStringSubmatch(p.logs("app"), -1)
		return all[len(all)-1][1]
	}
	first := seen()
	p.deleteKey(p.wantLive(1)[0].ID)
	p.eventually("another token", 20*time.Second, func() bool { return seen() != first })
	// The command is the injector's only child. The injector's own environment cannot be read by anybody.
	env, err := p.in("app", "for p in /proc/[0-9]*; do grep -q ^PPid:.1$ $p/status && tr '\\0' '\\n' <$p/environ && break; done")
	if err != nil || strings.Contains(env, "PASSWORD") || !strings.Contains(env, "BALENA_TOKEN=") {
		t.Error("the app's environment:", env, err)
	}
}

func TestKeysExample(t *testing.T) {
	t.Parallel()
	p := newProject(t, "keys.yaml", "injector")
	p.up()
	p.wantLive(2)
	one, two := p.read("deploy", "/secrets/balena-token"), p.read("report", "/secrets/balena-token")
	p.wantAccepted(one)
	p.wantAccepted(two)
	if one == two {
		t.Error("both apps have the same token")
	}
}

func TestDeviceExample(t *testing.T) {
	t.Parallel()
	p := newProject(t, "device.yaml", "app")
	dir := t.TempDir()
	const app = "my-device-app" // as the file names it
	cmd := exec.Command("docker", "build", "-q", "-t", app, "-f", "-", dir)
	cmd.Env = append(cmd.Environ(), "DOCKER_BUILDKIT=0")
	cmd.Stdin = strings.NewReader(
		"FROM " + busybox + "\nCOPY --from=" + image + " /injector /injector\nENTRYPOINT [\"/injector\", \"exec\", \"--\"]\n" +
			`CMD ["sh", "-c", "trap exit TERM; while :; do echo app: ${#BALENA_TOKEN}; sleep 1 & wait; done"]` + "\n",
	)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatal(err, string(out))
	}
	t.Cleanup(func() { _ = exec.Command("docker", "rmi", "-f", app).Run() })
	p.set["INJECTOR_USERNAME"], p.set["INJECTOR_PASSWORD"], p.set["BALENA_API_URL"] = "injector", password, "http://standin:8990"
	p.compose("up", "-d", "--no-build")
	p.saysEventually("app", "app: 32")
	p.wantLive(1)
}

// The demo is a user's first look: one command, and the log tells the story to its end.
func TestDemo(t *testing.T) {
	t.Parallel()
	engine(t)
	demo := func(args ...string) string {
		t.Helper()
		cmd := exec.Command("docker-compose", append([]string{"-p", "e2edemo", "-f", "../examples/compose/demo.yaml"}, args...)...)
		cmd.Env = append(cmd.Environ(), "GO_IMAGE="+toolchain, "DOCKER_BUILDKIT=0", "COMPOSE_DOCKER_CLI_BUILD=0")
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("%q: %v\n%s", args, err, out)
		}
		return string(out)
	}
	t.Cleanup(func() { demo("down", "-v") })
	demo("up", "--build", "-d")
	for end := time.Now().Add(time.Minute); !strings.Contains(demo("logs", "app"), "token 3 is accepted"); time.Sleep(time.Second) {
		if time.Now().After(end) {
			t.Fatal("no third token:", demo("logs"))
		}
	}
	demo("stop")
	log := demo("logs", "--no-color")
	for _, want := range []string{"minted a key", "extended the key", "revoked a key", "app: stopping after",
		"standin: 0 live keys at the end"} {
		if !strings.Contains(log, want) {
			t.Errorf("the log does not say %q:\n%s", want, log)
		}
	}
	if strings.Contains(log, "refused") {
		t.Errorf("the app saw a token that was refused:\n%s", log)
	}
}
