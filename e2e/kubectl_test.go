package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
)

// toolsDir holds what the tests build for themselves, until they end.
var toolsDir string

// kubectlBuilt is the path of the kubectl that is built from ./kubectl.
var kubectlBuilt = sync.OnceValues(func() (string, error) {
	path := filepath.Join(toolsDir, "kubectl")
	cmd := exec.Command("go", "build", "-o", path, "./kubectl")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build kubectl: %w\n%s", err, out)
	}
	return path, nil
})

func kubectl(t *testing.T, args ...string) *exec.Cmd {
	t.Helper()
	path, err := kubectlBuilt()
	if err != nil {
		t.Fatal(err)
	}
	return exec.Command(path, args...)
}
