package e2e

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"sync"
	"sync/atomic"
	"testing"
)

// Images that the tests build once, under names of their own.
const (
	toolchain = "injector-e2e-toolchain"
	busybox   = toolchain + "-busybox"
	image     = "injector-e2e"
	demoImage = "injector-e2e-demo"
)

var ran atomic.Int32 // tests on the engine

func TestMain(m *testing.M) {
	os.Exit(run(m))
}

func run(m *testing.M) int {
	var err error
	if toolsDir, err = os.MkdirTemp("", "injector-e2e-"); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer func() { _ = os.RemoveAll(toolsDir) }()
	code := m.Run()
	if startedCluster != nil {
		if err := startedCluster.stop(); err != nil {
			fmt.Fprintln(os.Stderr, err)
		}
	}
	fmt.Printf("end-to-end tests on a Docker Engine: %d\n", ran.Load())
	return code
}

var build = sync.OnceValue(func() error {
	for _, c := range [][]string{
		{"./toolchain.sh", toolchain},
		{"docker", "build", "-q", "--build-arg", "GO_IMAGE=" + toolchain, "-t", image, ".."},
		{"docker", "build", "-q", "--build-arg", "GO_IMAGE=" + toolchain, "--target", "demo", "-t", demoImage, ".."},
	} {
		cmd := exec.Command(c[0], c[1:]...)
		cmd.Env = append(os.Environ(), "DOCKER_BUILDKIT=0")
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("%v: %w\n%s", c, err, out)
		}
	}
	return nil
})

// engine makes sure of an engine and of the images. Without one a test is left out, but for CI, which fails.
func engine(t *testing.T) {
	t.Helper()
	if out, err := exec.Command("docker", "version").CombinedOutput(); err != nil {
		if os.Getenv("CI_HAS_ALL") != "" {
			t.Fatalf("no Docker Engine: %v\n%s", err, out)
		}
		t.Skip("LEFT OUT: there is no Docker Engine (.ci/run shows how to start one)")
	}
	if err := build(); err != nil {
		t.Fatal(err)
	}
	ran.Add(1)
}

// sh runs a command, which must succeed, and returns its output without the last line break.
func sh(t *testing.T, name string, args ...string) string {
	t.Helper()
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %q: %v\n%s", name, args, err, out)
	}
	return string(bytes.TrimSpace(out))
}
