package e2e

import (
	"bytes"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/pod-security-admission/api"
	"k8s.io/pod-security-admission/policy"
	"sigs.k8s.io/kustomize/api/krusty"
	"sigs.k8s.io/kustomize/kyaml/filesys"
	"sigs.k8s.io/yaml"
)

// built is a kustomization's result, made with the library that kubectl has inside.
func built(t *testing.T, dir string) []byte {
	t.Helper()
	// The library holds paths against the working directory with its links resolved.
	dir, err := filepath.EvalSymlinks(dir)
	if err != nil {
		t.Fatal(err)
	}
	made, err := krusty.MakeKustomizer(krusty.MakeDefaultOptions()).Run(filesys.MakeFsOnDisk(), dir)
	if err != nil {
		t.Fatalf("%s: %v", dir, err)
	}
	out, err := made.AsYaml()
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func TestPlainFileIsTheKustomizationsResult(t *testing.T) {
	plain, err := os.ReadFile("../examples/k8s/plain/sidecar.yaml")
	if err != nil {
		t.Fatal(err)
	}
	_, body, _ := bytes.Cut(plain, []byte("\n"))
	if want := built(t, "../examples/k8s/base"); !bytes.Equal(body, want) {
		t.Errorf("plain/sidecar.yaml differs from: kubectl kustomize examples/k8s/base\n%s", want)
	}
}

// Unknown fields fail, and the restricted profile is judged by the cluster's own rules, then ours.
func TestManifests(t *testing.T) {
	found := 0
	err := filepath.WalkDir("../examples/k8s/plain", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		for _, doc := range strings.Split(string(text), "\n---\n") {
			var app appsv1.Deployment
			if err := yaml.UnmarshalStrict([]byte(doc), &app); err != nil {
				t.Errorf("%s: %v", path, err)
				continue
			}
			found++
			checkPod(t, path, &app.Spec.Template)
		}
		return nil
	})
	if err != nil || found == 0 {
		t.Fatal("manifests:", found, err)
	}
}

func checkPod(t *testing.T, path string, pod *corev1.PodTemplateSpec) {
	t.Helper()
	evaluator, err := policy.NewEvaluator(policy.DefaultChecks())
	if err != nil {
		t.Fatal(err)
	}
	restricted := api.LevelVersion{Level: api.LevelRestricted, Version: api.LatestVersion()}
	for _, r := range evaluator.EvaluatePod(restricted, &pod.ObjectMeta, &pod.Spec) {
		if !r.Allowed {
			t.Errorf("%s: not restricted: %s %s", path, r.ForbiddenReason, r.ForbiddenDetail)
		}
	}
	s := pod.Spec
	if s.AutomountServiceAccountToken == nil || *s.AutomountServiceAccountToken || s.EnableServiceLinks == nil || *s.EnableServiceLinks {
		t.Errorf("%s: a service account's token or service links", path)
	}
	if s.TerminationGracePeriodSeconds == nil || *s.TerminationGracePeriodSeconds < 15 {
		t.Errorf("%s: the grace period leaves no room for revoking", path)
	}
	for _, c := range append(s.InitContainers, s.Containers...) {
		if c.SecurityContext.ReadOnlyRootFilesystem == nil || !*c.SecurityContext.ReadOnlyRootFilesystem || c.Resources.Limits.Memory().IsZero() || c.Resources.Requests.Cpu().IsZero() {
			t.Errorf("%s: %s can write its root, or has no limits", path, c.Name)
		}
		for _, m := range c.VolumeMounts {
			if m.SubPath != "" || c.Name != "injector" && !m.ReadOnly {
				t.Errorf("%s: %s mounts %s by subPath or writable", path, c.Name, m.Name)
			}
		}
	}
	for _, v := range s.Volumes {
		if e := v.EmptyDir; e != nil && (e.Medium != corev1.StorageMediumMemory || e.SizeLimit.IsZero()) {
			t.Errorf("%s: %s is not in memory, or has no limit", path, v.Name)
		}
	}
}
