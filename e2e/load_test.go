package e2e

import (
	"context"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/compose-spec/compose-go/v2/cli"
)

func composeFiles(t *testing.T) []string {
	t.Helper()
	files, err := filepath.Glob("../examples/compose/*.yaml")
	if err != nil || len(files) < 8 {
		t.Fatal("compose files:", files, err)
	}
	return files
}

// The specification's own loader stands for Compose v2 and later; the engine's tests use 1.29.
func TestFilesLoadInComposeGo(t *testing.T) {
	for _, file := range composeFiles(t) {
		o, err := cli.NewProjectOptions([]string{file}, cli.WithEnv([]string{"BALENA_USERNAME=x"}), cli.WithName("x"))
		if err != nil {
			t.Fatal(err)
		}
		project, err := o.LoadProject(context.Background())
		if err != nil {
			t.Errorf("%s: %v", file, err)
			continue
		}
		for name, s := range project.Services {
			if !s.ReadOnly && name != "install" || len(s.CapDrop) != 1 || s.CapDrop[0] != "ALL" {
				t.Errorf("%s: %s is not hardened", file, name)
			}
		}
	}
}

func TestFilesLoadInCompose1(t *testing.T) {
	engine(t)
	for _, file := range composeFiles(t) {
		cmd := exec.Command("docker-compose", "-f", file, "config", "-q")
		cmd.Env = append(cmd.Environ(), "BALENA_USERNAME=x")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("%s: %v %s", file, err, out)
		}
	}
}
