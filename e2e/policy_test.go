package e2e

import (
	"bytes"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/json"
)

const policyFile = k8sDir + "policy/v1beta1.yaml"

// TestPolicies are the same for both versions of the API, of which a cluster of 1.34 serves the first alone.
func TestPolicies(t *testing.T) {
	beta, err := os.ReadFile(policyFile)
	if err != nil {
		t.Fatal(err)
	}
	stable, err := os.ReadFile(k8sDir + "policy/v1.yaml")
	if err != nil {
		t.Fatal(err)
	}
	const group = "\napiVersion: admissionregistration.k8s.io/v1"
	want := bytes.ReplaceAll(beta, []byte(group+"beta1\n"), []byte(group+"\n"))
	if !bytes.Equal(stable, want) || bytes.Count(stable, []byte(group)) != 2 {
		t.Error("v1.yaml is not v1beta1.yaml with the other version")
	}
}

// annotated is a user's pod that the policy changes: it has an init container that needs the token, another volume, and a
// container with something else at /secrets.
const annotated = `
apiVersion: apps/v1
kind: Deployment
metadata: {name: app}
spec:
  selector: {matchLabels: {app: app}}
  template:
    metadata:
      labels: {app: app}
      annotations: {balena-injector.github.io/inject: "true", balena-injector.github.io/secret: my-login,
        balena-injector.github.io/api-url: "URL"}
    spec:
      automountServiceAccountToken: false
      enableServiceLinks: false
      securityContext: {runAsNonRoot: true, runAsUser: 1000, seccompProfile: {type: RuntimeDefault}}
      initContainers:
        - name: migrate
          image: busybox:stable
          command: [test, -s, /secrets/balena-token]
          securityContext: {allowPrivilegeEscalation: false, capabilities: {drop: [ALL]}}
      containers:
        - name: app
          image: busybox:stable
          command: [sh, -c, "trap 'exit 0' TERM; md5sum </secrets/balena-token; sleep 600 & wait $!"]
          securityContext: {allowPrivilegeEscalation: false, capabilities: {drop: [ALL]}}
        - name: other
          image: busybox:stable
          command: [sh, -c, "trap 'exit 0' TERM; sleep 600 & wait $!"]
          securityContext: {allowPrivilegeEscalation: false, capabilities: {drop: [ALL]}}
          volumeMounts: [{name: mine, mountPath: /secrets}]
      volumes: [{name: mine, emptyDir: {}}]
---
apiVersion: v1
kind: Pod
metadata: {name: bare, annotations: {balena-injector.github.io/inject: "true", balena-injector.github.io/secret: my-login,
  balena-injector.github.io/api-url: "URL"}}
spec:
  automountServiceAccountToken: false
  enableServiceLinks: false
  securityContext: {runAsNonRoot: true, runAsUser: 1000, seccompProfile: {type: RuntimeDefault}, fsGroup: 3000}
  containers:
    - name: app
      image: busybox:stable
      command: [sh, -c, "trap 'exit 0' TERM; sleep 600 & wait $!"]
      securityContext: {allowPrivilegeEscalation: false, capabilities: {drop: [ALL]}}
---
apiVersion: v1
kind: Pod
metadata: {name: alone, annotations: {balena-injector.github.io/inject: "false"}}
spec:
  securityContext: {runAsNonRoot: true, runAsUser: 1000, seccompProfile: {type: RuntimeDefault}}
  containers:
    - name: app
      image: busybox:stable
      command: [sleep, "600"]
      securityContext: {allowPrivilegeEscalation: false, capabilities: {drop: [ALL]}}
`

// TestClusterPolicy annotates pods: the API server adds the sidecar, which is the component's, and their apps have a token.
func TestClusterPolicy(t *testing.T) {
	t.Parallel()
	h := newNamespace(t)
	h.must("create", "secret", "generic", "my-login", "--from-literal=username=injector", "--from-literal=password="+password)
	h.applyPolicy()
	h.manifest = filepath.Join(t.TempDir(), "mine.yaml")
	text := strings.ReplaceAll(annotated, "URL", "http://"+h.address()+":8990")
	if err := os.WriteFile(h.manifest, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	h.apply()
	h.rolledOut()
	h.must("wait", "pod", "bare", "--for=condition=Ready", "--timeout=60s")
	h.wantAccepted(h.token())
	h.wantLive(2)

	with := h.podSpec("-l", "app=app")
	var component corev1.Container
	for _, c := range pods(t, "sidecar")[0].Spec.InitContainers {
		component = c
	}
	if len(with.InitContainers) != 2 || with.InitContainers[1].Name != "migrate" {
		t.Fatalf("init containers: %+v", with.InitContainers)
	}
	sameSidecar(t, with.InitContainers[0], component)
	if *with.SecurityContext.FSGroup != 2000 || *h.podSpec("bare").SecurityContext.FSGroup != 3000 {
		t.Error("the policy gives a group to pods that have none, and to no other")
	}
	for _, c := range with.Containers {
		if mounts := len(c.VolumeMounts); mounts != 1 || (c.Name == "app") != (c.VolumeMounts[0].Name == "balena-token") {
			t.Errorf("%s: %+v", c.Name, c.VolumeMounts)
		}
	}
	if s := h.podSpec("alone"); len(s.InitContainers) != 0 {
		t.Error("a pod that did not ask for it has a sidecar")
	}
	h.removed()
}

// sameSidecar compares the policy's sidecar with the component's, but for what the test changes and the cluster fills in.
func sameSidecar(t *testing.T, got, want corev1.Container) {
	t.Helper()
	if got.Env[0].Name != "INJECTOR_ALLOW_HTTP" || got.Env[1].Name != "BALENA_API_URL" {
		t.Fatalf("variables: %+v", got.Env)
	}
	got.Env = got.Env[1:]
	got.Env[0].Value = want.Env[0].Value
	got.Env[1].ValueFrom.SecretKeyRef.Name = "balena-login"
	got.TerminationMessagePath, got.TerminationMessagePolicy = "", ""
	for _, p := range []*corev1.Probe{got.StartupProbe, got.ReadinessProbe} {
		p.SuccessThreshold, p.HTTPGet.Scheme = 0, ""
	}
	got.ReadinessProbe.FailureThreshold = 0
	got.Ports[0].Protocol = ""
	for i := range got.VolumeMounts {
		got.VolumeMounts[i].RecursiveReadOnly = nil
	}
	if !reflect.DeepEqual(normal(t, got), normal(t, want)) {
		t.Errorf("the policy's sidecar is\n%+v\nand the component's\n%+v", normal(t, got), normal(t, want))
	}
}

// normal is an object as its JSON has it.
func normal(t *testing.T, c corev1.Container) map[string]any {
	t.Helper()
	fields, err := runtime.DefaultUnstructuredConverter.ToUnstructured(&c)
	if err != nil {
		t.Fatal(err)
	}
	return fields
}

func (h *home) podSpec(which ...string) corev1.PodSpec {
	h.t.Helper()
	out := h.must(append(append([]string{"get", "pod"}, which...), "-o", "json")...)
	var list corev1.PodList
	if err := json.Unmarshal([]byte(out), &list); err != nil {
		h.t.Fatal(err)
	}
	if len(list.Items) > 0 {
		return list.Items[0].Spec
	}
	var one corev1.Pod
	if err := json.Unmarshal([]byte(out), &one); err != nil {
		h.t.Fatal(err)
	}
	return one.Spec
}

// applyPolicy installs the policy, with the stand-in's plain http allowed, and waits until the API server obeys it.
func (h *home) applyPolicy() {
	h.t.Helper()
	raw, err := os.ReadFile(policyFile)
	if err != nil {
		h.t.Fatal(err)
	}
	const first = "Object.spec.initContainers.env{name: 'BALENA_API_URL'"
	const http = "Object.spec.initContainers.env{name: 'INJECTOR_ALLOW_HTTP', value: 'true'},\n                  "
	text := strings.Replace(string(raw), first, http+first, 1)
	path := filepath.Join(h.t.TempDir(), "policy.yaml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		h.t.Fatal(err)
	}
	h.must("apply", "-f", path) // it warns that this version of the API will end
	h.t.Cleanup(func() { _, _ = h.kubectl("delete", "-f", path) })
	probe := filepath.Join(h.t.TempDir(), "probe.yaml")
	pod := "apiVersion: v1\nkind: Pod\nmetadata: {name: probe, annotations: {balena-injector.github.io/inject: \"true\"}}\nspec:\n" +
		"  securityContext: {runAsNonRoot: true, seccompProfile: {type: RuntimeDefault}}\n" +
		"  containers: [{name: app, image: x, securityContext: {allowPrivilegeEscalation: false, capabilities: {drop: [ALL]}}}]\n"
	if err := os.WriteFile(probe, []byte(pod), 0o600); err != nil {
		h.t.Fatal(err)
	}
	h.eventually("a policy that is obeyed", 60*time.Second, func() bool {
		out, err := h.kubectl("create", "--dry-run=server", "-o", "jsonpath={.spec.initContainers[*].name}", "-f", probe)
		if err != nil {
			h.t.Log(err)
		}
		return err == nil && out == injectorContainer
	})
}
