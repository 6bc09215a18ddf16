package e2e

import (
	"os/exec"
	"strings"
	"testing"
	"time"
)

// quick makes what a day brings happen within a test.
var quick = map[string]string{"INJECTOR_CHECK_INTERVAL": "1s"}

func TestPodSidecar(t *testing.T) {
	t.Parallel()
	p := newPod(t, "sidecar", quick)
	p.start()
	p.ready()
	token := p.read("balena-token/balena-token")
	p.wantAccepted(token)
	p.says("app", md5sum(token))
	if log := p.logs("app"); strings.Contains(log, "No such file") {
		t.Error("the app started without a token:", log)
	}
	got := p.root("stat -c %u:%g:%a /volumes/balena-token/balena-token /volumes/balena-token/.injector")
	if got != "65532:2000:440\n65532:2000:2700" {
		t.Error("owner, group and mode of token and state:", got)
	}
	for _, line := range []string{"echo x >/secrets/x", "rm /secrets/balena-token", "ls /secrets/.injector", "ls /login"} {
		if out, err := exec.Command("docker", "exec", p.name+"-app", "sh", "-c", line).CombinedOutput(); err == nil {
			t.Errorf("the app can %s: %s", line, out)
		}
	}
	p.deleteKey(p.wantLive(1)[0].ID)
	p.eventually("another token", 20*time.Second, func() bool { return p.read("balena-token/balena-token") != token })
	second := p.read("balena-token/balena-token")
	p.says("app", md5sum(second))

	key := p.wantLive(1)[0]
	p.docker("kill", p.name+"-"+injectorContainer) // the kubelet starts a sidecar again
	p.docker("start", p.name+"-"+injectorContainer)
	p.says(injectorContainer, "adopted")
	p.ready()
	if p.wantLive(1)[0].ID != key.ID || p.read("balena-token/balena-token") != second {
		t.Error("the restarted sidecar made another key")
	}
	p.stop()
	p.wantLive(0)
}

// The pod waits for a correct password, and takes it without a restart.
func TestPodSecretIsUpdated(t *testing.T) {
	t.Parallel()
	p := newPod(t, "sidecar", quick)
	p.setPassword("wrong")
	c := &p.spec.InitContainers[0]
	p.run(c)
	p.says(injectorContainer, "the user name or the password is not accepted")
	if p.probe(c, c.StartupProbe) {
		t.Error("started without a token")
	}
	p.setPassword(password)
	p.eventually("the startup probe", 20*time.Second, func() bool { return p.probe(c, c.StartupProbe) })
	p.wantAccepted(p.read("balena-token/balena-token"))
	p.stopSidecars("10")
	p.wantLive(0)
}

// One mint in all, and at the end the key lives on for as long as the app may need to stop.
func TestPodClassic(t *testing.T) {
	t.Parallel()
	p := newPod(t, "classic", map[string]string{"INJECTOR_CHECK_INTERVAL": "1s", "INJECTOR_SHUTDOWN_DELAY": "3s"})
	p.start()
	p.ready()
	token := p.read("balena-token/balena-token")
	p.says("app", md5sum(token))
	p.says(injectorContainer, "adopted")
	if n := p.mints(); n != 1 {
		t.Errorf("%d mints", n)
	}
	for _, c := range []string{"app", injectorContainer} {
		p.docker("kill", "-s", "TERM", p.name+"-"+c)
	}
	p.docker("wait", p.name+"-app")
	p.wantAccepted(token)
	p.docker("wait", p.name+"-"+injectorContainer)
	p.wantExit(injectorContainer, "0")
	p.wantLive(0)
}

// A Job is over when its container is, and the sidecar ends after it.
func TestPodJob(t *testing.T) {
	t.Parallel()
	p := newPod(t, "job", quick)
	p.start()
	if code := p.docker("wait", p.name+"-job"); code != "0" {
		t.Errorf("exit %s: %s", code, p.logs("job"))
	}
	p.wantLive(1)
	ended := time.Now()
	p.stopSidecars("10")
	t.Logf("completed %v after the app", time.Since(ended).Round(time.Millisecond))
	if took := time.Since(ended); took > 10*time.Second {
		t.Errorf("completed %v after the app", took)
	}
	p.wantLive(0)
}

func TestPodExec(t *testing.T) {
	t.Parallel()
	p := newPod(t, "exec", quick)
	p.start()
	p.ready()
	p.says("app", "app: the token's md5 is ")
	first := p.logs("app")
	key := p.wantLive(1)[0]
	p.deleteKey(key.ID)
	p.says("app", "restarting the command")
	p.eventually("another token", 20*time.Second, func() bool {
		return strings.Count(p.logs("app"), "md5 is ") > strings.Count(first, "md5 is ")
	})
	key = p.wantLive(1)[0]
	p.docker("kill", p.name+"-app") // a crash: the state is in memory beside the container
	p.docker("start", p.name+"-app")
	p.says("app", "adopted")
	p.ready()
	if p.wantLive(1)[0].ID != key.ID {
		t.Error("the restarted container made another key")
	}
	p.stop()
	p.wantExit("app", "0") // as the app's own trap says
	p.wantLive(0)
}

func TestPodKeys(t *testing.T) {
	t.Parallel()
	p := newPod(t, "keys", quick)
	p.start()
	p.ready()
	p.wantLive(2)
	one, two := p.read("balena-token/balena-token"), p.read("balena-token-report/balena-token")
	p.wantAccepted(one)
	p.wantAccepted(two)
	p.says("app", md5sum(one))
	p.says("report", md5sum(two))
	p.stop()
	p.wantLive(0)
}
