package e2e

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	policyv1 "k8s.io/api/policy/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/pod-security-admission/api"
	"k8s.io/pod-security-admission/policy"
)

var update = flag.Bool("update", false, "write examples/k8s/plain anew")

const k8sDir = "../examples/k8s/"

// injectorContainer is the container's name in all manifests.
const injectorContainer = "balena-token-injector"

// homes are the forms in which the injector runs on Kubernetes: a kustomization, and its plain file.
var homes = map[string]string{
	"sidecar": "base", "classic": "overlays/classic", "job": "overlays/job", "exec": "overlays/exec",
	"keys": "overlays/keys", "replicas": "overlays/replicas",
}

// built is what `kubectl kustomize` makes of a kustomization.
func built(t *testing.T, dir string) []byte {
	t.Helper()
	var complaints bytes.Buffer
	cmd := kubectl(t, "kustomize", dir)
	cmd.Stderr = &complaints
	out, err := cmd.Output()
	if err != nil || complaints.Len() > 0 {
		t.Fatalf("kubectl kustomize %s: %v %s", dir, err, complaints.String())
	}
	return out
}

// decoded are the objects of a manifest. Fields that the API does not have, or has twice, fail.
func decoded(t *testing.T, name string, manifest []byte) []runtime.Object {
	t.Helper()
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{appsv1.AddToScheme, batchv1.AddToScheme, corev1.AddToScheme, policyv1.AddToScheme,
		networkingv1.AddToScheme} {
		if err := add(scheme); err != nil {
			t.Fatal(err)
		}
	}
	strict := serializer.NewCodecFactory(scheme, serializer.EnableStrict).UniversalDeserializer()
	var objects []runtime.Object
	for _, doc := range bytes.Split(manifest, []byte("\n---\n")) {
		object, _, err := strict.Decode(doc, nil, nil)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		objects = append(objects, object)
	}
	return objects
}

// template is the object's pods, nil if it has none.
func template(object runtime.Object) *corev1.PodTemplateSpec {
	switch o := object.(type) {
	case *appsv1.Deployment:
		return &o.Spec.Template
	case *appsv1.StatefulSet:
		return &o.Spec.Template
	case *batchv1.Job:
		return &o.Spec.Template
	case *batchv1.CronJob:
		return &o.Spec.JobTemplate.Spec.Template
	case *corev1.Pod:
		return &corev1.PodTemplateSpec{ObjectMeta: o.ObjectMeta, Spec: o.Spec}
	}
	return nil
}

// pods are the templates of a home's plain file.
func pods(t *testing.T, home string) []*corev1.PodTemplateSpec {
	t.Helper()
	file := k8sDir + "plain/" + home + ".yaml"
	raw, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var found []*corev1.PodTemplateSpec
	for _, object := range decoded(t, file, raw) {
		if pod := template(object); pod != nil {
			found = append(found, pod)
		}
	}
	return found
}

func TestDecodingIsStrict(t *testing.T) {
	doc := "apiVersion: v1\nkind: Pod\nmetadata: {name: x}\nspec: {containers: [{name: x, imagePullPolice: Always}]}\n"
	scheme := runtime.NewScheme()
	if err := corev1.AddToScheme(scheme); err != nil {
		t.Fatal(err)
	}
	_, _, err := serializer.NewCodecFactory(scheme, serializer.EnableStrict).UniversalDeserializer().Decode([]byte(doc), nil, nil)
	if err == nil || !strings.Contains(err.Error(), "imagePullPolice") {
		t.Error("an unknown field passes:", err)
	}
}

// The plain files are the kustomizations' results: go test ./e2e -run TestPlainFiles -update
func TestPlainFiles(t *testing.T) {
	files, err := filepath.Glob(k8sDir + "plain/*.yaml")
	if err != nil || !*update && len(files) != len(homes) {
		t.Errorf("%d plain files for %d homes, %v", len(files), len(homes), err)
	}
	for home, dir := range homes {
		file := k8sDir + "plain/" + home + ".yaml"
		want := fmt.Appendf(nil,
			"# Made by: kubectl kustomize examples/k8s/%s\n# How to use it: docs/kubernetes.md. Yours are the image, the API's "+
				"URL, and the Secret \"balena-login\".\n%s", dir, built(t, k8sDir+dir))
		if *update {
			if err := os.WriteFile(file, want, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		if got, err := os.ReadFile(file); err != nil || !bytes.Equal(got, want) {
			t.Errorf(
				"%s is not what kubectl kustomize makes of %s (%v); `cd e2e && go test -run TestPlainFiles -update` writes it",
				file,
				dir,
				err,
			)
		}
	}
}

// TestManifests judges every pod by the restricted profile, with the cluster's own rules and then field by
// field, and by what the injector needs beyond it.
func TestManifests(t *testing.T) {
	for home := range homes {
		t.Run(home, func(t *testing.T) {
			found := pods(t, home)
			if len(found) != 1 {
				t.Fatalf("%d pods", len(found))
			}
			restricted(t, found[0])
			checkPod(t, &found[0].Spec)
		})
	}
}

// restricted asks the rules that the cluster's own admission has.
func restricted(t *testing.T, pod *corev1.PodTemplateSpec) {
	t.Helper()
	evaluator, err := policy.NewEvaluator(policy.DefaultChecks())
	if err != nil {
		t.Fatal(err)
	}
	level := api.LevelVersion{Level: api.LevelRestricted, Version: api.LatestVersion()}
	for _, r := range evaluator.EvaluatePod(level, &pod.ObjectMeta, &pod.Spec) {
		if !r.Allowed {
			t.Errorf("not restricted: %s %s", r.ForbiddenReason, r.ForbiddenDetail)
		}
	}
}

func checkPod(t *testing.T, s *corev1.PodSpec) {
	t.Helper()
	is := func(b *bool, want bool) bool { return b != nil && *b == want }
	if !is(s.AutomountServiceAccountToken, false) || !is(s.EnableServiceLinks, false) {
		t.Error("a service account's token, or service links")
	}
	if s.HostNetwork || s.HostPID || s.HostIPC {
		t.Error("a namespace of the host")
	}
	if sc := s.SecurityContext; sc == nil || sc.FSGroup == nil || !is(sc.RunAsNonRoot, true) || sc.SeccompProfile == nil ||
		sc.SeccompProfile.Type != corev1.SeccompProfileTypeRuntimeDefault {
		t.Errorf("the pod's security context: %+v", s.SecurityContext)
	}
	if s.TerminationGracePeriodSeconds == nil || *s.TerminationGracePeriodSeconds < 40 {
		t.Error("the grace period leaves no room for the app's stop and for revoking")
	}
	for _, c := range append(append([]corev1.Container{}, s.InitContainers...), s.Containers...) {
		checkContainer(t, &c)
	}
	for _, v := range s.Volumes {
		checkVolume(t, &v)
	}
}

func checkContainer(t *testing.T, c *corev1.Container) {
	t.Helper()
	sc := c.SecurityContext
	want := &corev1.SecurityContext{
		AllowPrivilegeEscalation: new(bool),
		ReadOnlyRootFilesystem:   ptr(true),
		RunAsNonRoot:             ptr(true),
		RunAsUser:                sc.RunAsUser,
		Capabilities: &corev1.Capabilities{
			Drop: []corev1.Capability{"ALL"},
		},
		SeccompProfile: &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeRuntimeDefault},
	}
	if !reflect.DeepEqual(sc, want) || sc.RunAsUser == nil || *sc.RunAsUser == 0 {
		t.Errorf("%s: the security context is %+v", c.Name, sc)
	}
	if c.Resources.Limits.Memory().IsZero() || c.Resources.Requests.Cpu().IsZero() || c.Resources.Requests.Memory().IsZero() {
		t.Errorf("%s has no requests or limits", c.Name)
	}
	injects := c.Image == injectorImage || strings.Contains(strings.Join(c.Command, " "), "injector exec")
	for _, m := range c.VolumeMounts {
		if m.SubPath != "" || m.SubPathExpr != "" {
			t.Errorf("%s mounts %s by subPath", c.Name, m.Name)
		}
		if m.Name == "balena-login" && (!injects || !m.ReadOnly) {
			t.Errorf("%s mounts the credential", c.Name)
		}
		if !injects && !m.ReadOnly {
			t.Errorf("%s can write to %s", c.Name, m.Name)
		}
	}
	if c.Image == injectorImage && c.ImagePullPolicy != corev1.PullIfNotPresent {
		t.Errorf("%s: without a tag the image would be pulled each time", c.Name)
	}
	always := c.RestartPolicy != nil && *c.RestartPolicy == corev1.ContainerRestartPolicyAlways
	if always && (c.StartupProbe == nil || c.ReadinessProbe == nil) {
		t.Errorf("%s: a native sidecar without its probes", c.Name)
	}
	if injects && c.LivenessProbe != nil { // its SIGTERM would revoke the token of a running app
		t.Errorf("%s has a liveness probe", c.Name)
	}
}

func checkVolume(t *testing.T, v *corev1.Volume) {
	t.Helper()
	switch {
	case v.EmptyDir != nil:
		if v.EmptyDir.SizeLimit.IsZero() || v.Name != "program" && v.EmptyDir.Medium != corev1.StorageMediumMemory {
			t.Errorf("%s is not in memory, or has no limit", v.Name)
		}
	case v.Secret != nil:
		if v.Secret.DefaultMode == nil || *v.Secret.DefaultMode != 0o440 {
			t.Errorf("%s: the mode is %v", v.Name, v.Secret.DefaultMode)
		}
	default:
		t.Errorf("%s is neither", v.Name)
	}
}

func ptr[T any](v T) *T { return &v }

// A budget that allows no disruption would block every drain of a node.
func TestDisruptionBudgetBlocksNoDrain(t *testing.T) {
	raw, err := os.ReadFile(k8sDir + "plain/replicas.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var replicas int32
	var budget *policyv1.PodDisruptionBudget
	for _, object := range decoded(t, "replicas.yaml", raw) {
		switch o := object.(type) {
		case *appsv1.Deployment:
			replicas = *o.Spec.Replicas
		case *policyv1.PodDisruptionBudget:
			budget = o
		}
	}
	if replicas < 2 || budget == nil || budget.Spec.MaxUnavailable.IntValue() != 1 || budget.Spec.Selector.MatchLabels["app"] != "app" {
		t.Errorf("%d replicas, %+v", replicas, budget)
	}
}

// TestNetworkPolicy lets only one namespace reach the port that the sidecar listens on.
func TestNetworkPolicy(t *testing.T) {
	const file = k8sDir + "networkpolicy/networkpolicy.yaml"
	raw, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	applied, ok := decoded(t, file, raw)[0].(*networkingv1.NetworkPolicy)
	if !ok {
		t.Fatal("it is not a NetworkPolicy")
	}
	port := pods(t, "sidecar")[0].Spec.InitContainers[0].Ports[0].ContainerPort
	guarded := applied.Spec.Ingress[0]
	if guarded.Ports[0].Port.IntVal != port || len(guarded.From) != 1 || guarded.From[0].NamespaceSelector == nil {
		t.Errorf("port %d is open: %+v", port, applied.Spec.Ingress)
	}
	for _, rule := range applied.Spec.Ingress[1:] {
		for _, p := range rule.Ports {
			if p.Port.IntVal == port {
				t.Errorf("port %d is open to all", port)
			}
		}
	}
}

// TestOpenBalena changes the URL and adds the certificate authority, and nothing else.
func TestOpenBalena(t *testing.T) {
	var pod *corev1.PodTemplateSpec
	var authority *corev1.ConfigMap
	for _, object := range decoded(t, "openbalena", built(t, k8sDir+"openbalena")) {
		if found := template(object); found != nil {
			pod = found
		}
		if found, ok := object.(*corev1.ConfigMap); ok {
			authority = found
		}
	}
	if pod == nil || authority == nil || !strings.Contains(authority.Data["ca.pem"], "BEGIN CERTIFICATE") {
		t.Fatal("a Deployment or the authority is missing")
	}
	restricted(t, pod)
	c := pod.Spec.InitContainers[0]
	set := map[string]string{}
	for _, variable := range c.Env {
		set[variable.Name] = variable.Value
	}
	if len(pod.Spec.InitContainers) != 1 || set["BALENA_API_URL"] != "https://api.openbalena.example.com" || len(c.VolumeMounts) != 3 {
		t.Errorf("%+v", c)
	}
	for _, m := range c.VolumeMounts {
		if m.Name == "openbalena-ca" && set["INJECTOR_CA_FILE"] != m.MountPath+"/ca.pem" {
			t.Errorf("%s is not in %s", set["INJECTOR_CA_FILE"], m.MountPath)
		}
	}
	if base := pods(t, "sidecar")[0].Spec.InitContainers[0]; len(c.Env) != len(base.Env)+1 || c.Image != base.Image {
		t.Errorf("more than the URL and the authority has changed: %+v", c.Env)
	}
}

// componentOf is what the component makes of a user's own manifest.
func componentOf(t *testing.T, own string) []byte {
	t.Helper()
	dir := t.TempDir()
	component, err := filepath.Abs(k8sDir + "component")
	if err != nil {
		t.Fatal(err)
	}
	if component, err = filepath.Rel(dir, component); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{"kustomization.yaml": "resources: [mine.yaml]\ncomponents:\n  - " + component + "\n",
		"mine.yaml": own} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return built(t, dir)
}

// TestComponent adds the sidecar to workloads of users, which have much that must stay as it is.
func TestComponent(t *testing.T) {
	objects := decoded(t, "the result", componentOf(t, mine))
	if len(objects) != 4 {
		t.Fatalf("%d objects", len(objects))
	}
	var sidecars []corev1.Container
	for _, object := range objects {
		s := template(object).Spec
		if len(s.InitContainers) != 2 {
			t.Fatalf("%T: init containers %+v", object, s.InitContainers)
		}
		sidecars = append(sidecars, s.InitContainers[0])
		if len(s.InitContainers) != 2 || s.InitContainers[0].Name != injectorContainer || s.InitContainers[1].Name != "injector" {
			t.Errorf("init containers, of which the user's may need the token: %+v", s.InitContainers)
		}
		if len(s.Volumes) != 3 || len(s.Containers) != 1 || s.Containers[0].Image != "mine" || len(s.Containers[0].VolumeMounts) != 2 {
			t.Errorf("the user's own is not as it was: %+v", s)
		}
		if s.AutomountServiceAccountToken != nil || s.TerminationGracePeriodSeconds == nil || *s.TerminationGracePeriodSeconds != 300 {
			t.Error("the component changes what is not its own")
		}
	}
	for _, c := range sidecars[1:] {
		if !reflect.DeepEqual(c, sidecars[0]) {
			t.Errorf("cronjob.yaml, pod.yaml and sidecar.yaml differ:\n%+v\n%+v", c, sidecars[0])
		}
	}
}

const mine = `
apiVersion: apps/v1
kind: Deployment
metadata: {name: mine}
spec:
  selector: {matchLabels: {app: mine}}
  template:
    metadata: {labels: {app: mine}}
    spec:
      terminationGracePeriodSeconds: 300
      initContainers: [{name: injector, image: mine}]
      containers:
        - name: mine
          image: mine
          volumeMounts:
            - {name: data, mountPath: /data}
            - {name: balena-token, mountPath: /secrets, readOnly: true}
      volumes: [{name: data, emptyDir: {}}]
---
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: mine}
spec:
  serviceName: mine
  selector: {matchLabels: {app: mine}}
  template:
    metadata: {labels: {app: mine}}
    spec:
      terminationGracePeriodSeconds: 300
      initContainers: [{name: injector, image: mine}]
      containers:
        - name: mine
          image: mine
          volumeMounts:
            - {name: data, mountPath: /data}
            - {name: balena-token, mountPath: /secrets, readOnly: true}
      volumes: [{name: data, emptyDir: {}}]
---
apiVersion: batch/v1
kind: CronJob
metadata: {name: mine}
spec:
  schedule: "0 4 * * *"
  jobTemplate:
    spec:
      template:
        spec:
          restartPolicy: Never
          terminationGracePeriodSeconds: 300
          initContainers: [{name: injector, image: mine}]
          containers:
            - name: mine
              image: mine
              volumeMounts:
                - {name: data, mountPath: /data}
                - {name: balena-token, mountPath: /secrets, readOnly: true}
          volumes: [{name: data, emptyDir: {}}]
---
apiVersion: v1
kind: Pod
metadata: {name: mine}
spec:
  terminationGracePeriodSeconds: 300
  initContainers: [{name: injector, image: mine}]
  containers:
    - name: mine
      image: mine
      volumeMounts:
        - {name: data, mountPath: /data}
        - {name: balena-token, mountPath: /secrets, readOnly: true}
  volumes: [{name: data, emptyDir: {}}]
`
