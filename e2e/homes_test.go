package e2e

import (
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// home is a plain file that is applied to a real cluster, in a namespace of its own that admits restricted pods only.
type home struct {
	*standin
	c         *cluster
	namespace string
	manifest  string
}

// newHome has a stand-in for the API, the Secret with that password, and nothing applied yet. What is changed in the
// manifest is what a user has to change; set are further variables of the injector.
func newHome(t *testing.T, name, password string, set map[string]string) *home {
	t.Helper()
	h := newNamespace(t)
	h.must("create", "secret", "generic", "balena-login", "--from-literal=username=injector", "--from-literal=password="+password)
	raw, err := os.ReadFile(k8sDir + "plain/" + name + ".yaml")
	if err != nil {
		t.Fatal(err)
	}
	h.manifest = filepath.Join(t.TempDir(), name+".yaml")
	if err := os.WriteFile(h.manifest, []byte(h.edited(string(raw), set)), 0o600); err != nil {
		t.Fatal(err)
	}
	return h
}

// newNamespace is an empty namespace, and a stand-in in another one. At the end the stand-in is asked for live keys.
func newNamespace(t *testing.T) *home {
	t.Helper()
	c := needCluster(t)
	h := &home{c: c, namespace: "e2e" + strings.ToLower(rand.Text()[:8])}
	h.standin = &standin{t, func() string {
		return h.must("get", "pod", "api", "-n", h.namespace+"-api", "-o", "jsonpath={.status.podIP}")
	}}
	t.Cleanup(h.end)
	h.must("create", "namespace", h.namespace)
	h.must("label", "namespace", h.namespace, "pod-security.kubernetes.io/enforce=restricted")
	h.must("create", "namespace", h.namespace+"-api")
	if err := within(10*time.Second, "the account of pods", func() error {
		_, err := c.kubectl("get", "serviceaccount", "default", "-n", h.namespace+"-api")
		return err
	}); err != nil {
		t.Fatal(err)
	}
	h.must("run", "api", "-n", h.namespace+"-api", "--image="+demoImage, "--image-pull-policy=Never", "--command", "--", "/standin",
		"-listen", ":8990")
	h.must("wait", "pod", "api", "-n", h.namespace+"-api", "--for=condition=Ready", "--timeout=60s")
	return h
}

// edited is a manifest with the stand-in's URL, which has no TLS, and more variables.
func (h *home) edited(manifest string, set map[string]string) string {
	h.t.Helper()
	var b strings.Builder
	for line := range strings.Lines(manifest) {
		if indent, ok := strings.CutSuffix(strings.TrimRight(line, "\n"), "- name: BALENA_API_URL"); ok {
			fmt.Fprintf(&b, "%s- {name: INJECTOR_ALLOW_HTTP, value: \"true\"}\n", indent)
			for name, value := range set {
				fmt.Fprintf(&b, "%s- {name: %s, value: %q}\n", indent, name, value)
			}
		}
		b.WriteString(strings.ReplaceAll(line, "https://api.balena-cloud.com", "http://"+h.address()+":8990"))
	}
	return b.String()
}

func (h *home) kubectl(args ...string) (string, error) {
	return h.c.kubectl(append([]string{"-n", h.namespace}, args...)...)
}

func (h *home) must(args ...string) string {
	h.t.Helper()
	out, err := h.kubectl(args...)
	if err != nil {
		h.t.Fatal(err)
	}
	return out
}

// apply brings the manifest up. A warning of the cluster's, such as about the restricted profile, fails.
func (h *home) apply() {
	h.t.Helper()
	h.must("apply", "--warnings-as-errors", "-f", h.manifest)
}

func (h *home) rolledOut() {
	h.t.Helper()
	h.must("rollout", "status", "deployment/app", "--timeout=60s")
}

func (h *home) logs(what string, container string) string {
	out, _ := h.kubectl("logs", what, "-c", container)
	return out
}

func (h *home) says(what, container, text string) {
	h.t.Helper()
	h.eventually(container+" says "+text, 30*time.Second, func() bool { return strings.Contains(h.logs(what, container), text) })
}

// removed deletes what was applied, and waits for the end of its pods. No key is left.
func (h *home) removed() {
	h.t.Helper()
	began := time.Now()
	h.must("delete", "--wait=true", "-f", h.manifest)
	h.must("wait", "pod", "--all", "--for=delete", "--timeout=60s")
	h.t.Logf("the pods ended in %v", time.Since(began).Round(100*time.Millisecond))
	h.wantLive(0)
}

// end looks at what is left, and removes all.
func (h *home) end() {
	if h.t.Failed() {
		out, err := h.kubectl("describe", "pods")
		events, _ := h.kubectl("logs", "--all-containers", "--prefix", "-l", "app", "--tail=-1")
		h.t.Log(out, err, events, h.c.tail("kubelet"))
	}
	for _, namespace := range []string{h.namespace, h.namespace + "-api"} {
		_, err := h.c.kubectl("delete", "namespace", namespace, "--wait=false")
		if err != nil {
			h.t.Error(errors.Unwrap(err))
		}
	}
}

func (h *home) token() string {
	h.t.Helper()
	return h.must("exec", "deployment/app", "-c", "app", "--", "cat", "/secrets/balena-token")
}

func TestClusterSidecar(t *testing.T) {
	t.Parallel()
	h := newHome(t, "sidecar", password, quick)
	h.apply()
	h.rolledOut()
	token := h.token()
	h.wantAccepted(token)
	h.says("deployment/app", "app", md5sum(token))
	h.deleteKey(h.wantLive(1)[0].ID)
	h.eventually("another token", 20*time.Second, func() bool { return h.token() != token })
	h.wantAccepted(h.token())

	key := h.wantLive(1)[0]
	// A crash: nothing but the node can kill a container's first process so.
	pod := h.must("get", "pod", "-l", "app=app", "-o", "jsonpath={.items[0].metadata.name}")
	id := h.must("get", "pod", pod, "-o", "jsonpath={.status.initContainerStatuses[0].containerID}")
	if out, err := h.c.ctr("tasks", "kill", "-s", "SIGKILL", strings.TrimPrefix(id, "containerd://")).CombinedOutput(); err != nil {
		t.Fatal(err, string(out))
	}
	token = h.token()
	h.eventually("the restarted sidecar", 60*time.Second, func() bool {
		if now := h.token(); now != token {
			t.Fatalf("the app reads %d bytes", len(now))
		}
		out := h.must("get", "pod", pod, "-o",
			"jsonpath={.status.initContainerStatuses[0].restartCount} {.status.initContainerStatuses[0].ready} "+
				"{.status.containerStatuses[0].restartCount}")
		return out == "1 true 0"
	})
	if h.wantLive(1)[0].ID != key.ID || h.mints() != 2 {
		t.Error("the restarted sidecar made another key")
	}

	// SIGTERM to the sidecar alone, as when its image is changed in place: after the command that asks for it, the next
	// one adopts.
	token = h.token()
	h.must("exec", pod, "-c", injectorContainer, "--", "/injector", "handover")
	id = h.must("get", "pod", pod, "-o", "jsonpath={.status.initContainerStatuses[0].containerID}")
	if out, err := h.c.ctr("tasks", "kill", "-s", "SIGTERM", strings.TrimPrefix(id, "containerd://")).CombinedOutput(); err != nil {
		t.Fatal(err, string(out))
	}
	h.eventually("the restarted sidecar, once more", 90*time.Second, func() bool {
		if now := h.token(); now != token {
			t.Fatalf("the app reads %d bytes", len(now))
		}
		return h.must("get", "pod", pod, "-o",
			"jsonpath={.status.initContainerStatuses[0].restartCount} {.status.initContainerStatuses[0].ready}") == "2 true"
	})
	if h.wantLive(1)[0].ID != key.ID || h.mints() != 2 {
		t.Error("the sidecar that took over made another key")
	}
	h.removed()
}

// The pod waits for a correct password, and takes it from the updated Secret without a restart.
func TestClusterSecretIsUpdated(t *testing.T) {
	t.Parallel()
	h := newHome(t, "sidecar", "wrong", quick)
	h.apply()
	h.says("deployment/app", injectorContainer, "the user name or the password is not accepted")
	secret := filepath.Join(t.TempDir(), "secret.yaml")
	updated := h.must("create", "secret", "generic", "balena-login", "--from-literal=username=injector",
		"--from-literal=password="+password, "--dry-run=client", "-o", "yaml")
	if err := os.WriteFile(secret, []byte(updated), 0o600); err != nil {
		t.Fatal(err)
	}
	h.must("replace", "-f", secret)
	h.rolledOut()
	h.wantAccepted(h.token())
	if n := h.must("get", "pod", "-l", "app=app", "-o", "jsonpath={.items[*].status.initContainerStatuses[0].restartCount}"); n != "0" {
		t.Errorf("%s restarts", n)
	}
	h.removed()
}

func TestClusterClassic(t *testing.T) {
	t.Parallel()
	h := newHome(t, "classic", password, map[string]string{"INJECTOR_CHECK_INTERVAL": "1s"})
	h.apply()
	h.rolledOut()
	h.says("deployment/app", "app", md5sum(h.token()))
	h.says("deployment/app", injectorContainer, "adopting the key of the last start")
	if n := h.mints(); n != 1 {
		t.Errorf("%d mints", n)
	}
	h.removed()
}

func TestClusterJob(t *testing.T) {
	t.Parallel()
	h := newHome(t, "job", password, quick)
	h.apply()
	h.must("wait", "job/job", "--for=condition=complete", "--timeout=60s")
	h.wantLive(0)
	ended := h.must("get", "pod", "-l", "app=job", "-o",
		"jsonpath={.items[0].status.containerStatuses[0].state.terminated.finishedAt} "+
			"{.items[0].status.initContainerStatuses[0].state.terminated.finishedAt} "+
			"{.items[0].status.initContainerStatuses[0].state.terminated.exitCode}")
	var app, injector time.Time
	code := -1
	fields := strings.Fields(ended)
	if len(fields) == 3 {
		app, _ = time.Parse(time.RFC3339, fields[0])
		injector, _ = time.Parse(time.RFC3339, fields[1])
		_, _ = fmt.Sscan(fields[2], &code)
	}
	if app.IsZero() || injector.Before(app) || injector.Sub(app) > 10*time.Second || code != 0 {
		t.Errorf("job and sidecar ended so: %q", ended)
	}
	t.Logf("completed %v after the app", injector.Sub(app))
	h.removed()
}

func TestClusterExec(t *testing.T) {
	t.Parallel()
	h := newHome(t, "exec", password, quick)
	h.apply()
	h.rolledOut()
	h.says("deployment/app", "app", "app: the token's md5 is ")
	h.deleteKey(h.wantLive(1)[0].ID)
	h.says("deployment/app", "app", "restarting the command")
	h.eventually("another token", 30*time.Second, func() bool {
		seen := map[string]bool{}
		for _, m := range md5InLog.FindAllStringSubmatch(h.logs("deployment/app", "app"), -1) {
			seen[m[1]] = true
		}
		return len(seen) == 2
	})
	h.removed()
}

func TestClusterKeys(t *testing.T) {
	t.Parallel()
	h := newHome(t, "keys", password, quick)
	h.apply()
	h.rolledOut()
	h.wantLive(2)
	report := h.must("exec", "deployment/app", "-c", "report", "--", "cat", "/secrets/balena-token")
	h.wantAccepted(report)
	h.wantAccepted(h.token())
	if report == h.token() {
		t.Error("both apps have the same token")
	}
	h.removed()
}

// Each pod has a key of its own, also while another version takes over, and one at a time may be drained.
func TestClusterReplicas(t *testing.T) {
	t.Parallel()
	h := newHome(t, "replicas", password, quick)
	h.apply()
	h.rolledOut()
	h.wantLive(3)
	h.eventually("room for one disruption", 20*time.Second, func() bool {
		return h.must("get", "poddisruptionbudget", "app", "-o", "jsonpath={.status.disruptionsAllowed}") == "1"
	})
	h.must("rollout", "restart", "deployment/app")
	h.rolledOut()
	h.eventually("three keys, of the new pods", 60*time.Second, func() bool { return len(h.live()) == 3 && h.mints() == 6 })
	h.removed()
}

// A user's own Deployment, which is not hardened and has no group, gets the component.
func TestClusterComponent(t *testing.T) {
	t.Parallel()
	h := newNamespace(t)
	h.must("create", "secret", "generic", "balena-login", "--from-literal=username=injector", "--from-literal=password="+password)
	h.must("label", "--overwrite", "namespace", h.namespace, "pod-security.kubernetes.io/enforce=baseline")
	h.manifest = filepath.Join(t.TempDir(), "mine.yaml")
	if err := os.WriteFile(h.manifest, []byte(h.edited(string(componentOf(t, ownApp)), nil)), 0o600); err != nil {
		t.Fatal(err)
	}
	h.apply()
	h.rolledOut()
	h.wantAccepted(h.token())
	h.removed()
}

// ownApp runs as another user, migrates with the token before it starts, and has no idea of groups.
const ownApp = `
apiVersion: apps/v1
kind: Deployment
metadata: {name: app}
spec:
  selector: {matchLabels: {app: app}}
  template:
    metadata: {labels: {app: app}}
    spec:
      terminationGracePeriodSeconds: 20
      initContainers:
        - {name: migrate, image: "busybox:stable", command: [test, -s, /secrets/balena-token],
           volumeMounts: [{name: balena-token, mountPath: /secrets, readOnly: true}]}
      containers:
        - name: app
          image: busybox:stable
          command: [sh, -c, "trap 'exit 0' TERM; sleep 600 & wait $!"]
          securityContext: {runAsUser: 4711, runAsGroup: 4711}
          volumeMounts:
            - {name: balena-token, mountPath: /secrets, readOnly: true}
`
