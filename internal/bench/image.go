package main

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"time"

	"github.com/balena-injector/injector/balena/balenatest"
)

const (
	benchImage        = "injector-bench"
	benchToolchain    = "injector-bench-toolchain"
	fewExtensions     = 8 // as many as the request budget gives at once
	containerPatience = time.Minute
)

// measureImage builds the image and runs it as the examples do, over HTTPS, until it has extended its key some times.
// It returns the image's size and the container's resident memory in MB; both are 0 without a Docker Engine.
func measureImage(dir string) (size, memory float64, err error) {
	if err := exec.Command("docker", "version").Run(); err != nil {
		fmt.Println("LEFT OUT: the image and its container; there is no Docker Engine")
		return 0, 0, nil
	}
	if size, err = buildImage(); err != nil {
		return 0, 0, err
	}
	fmt.Printf("image: %.2f MB (at most %d)\n", size, maxImageMB)
	memory, err = measureContainer(dir)
	return size, memory, err
}

func docker(args ...string) (string, error) {
	cmd := exec.Command("docker", args...)
	cmd.Env = append(os.Environ(), "DOCKER_BUILDKIT=0")
	out, err := cmd.CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("docker %s: %w\n%s", args[0], err, out)
	}
	return string(bytes.TrimSpace(out)), nil
}

// buildImage builds on a toolchain image of this machine's Go, so that no registry is needed.
func buildImage() (megabytes float64, err error) {
	if out, err := exec.Command("e2e/toolchain.sh", benchToolchain).CombinedOutput(); err != nil {
		return 0, fmt.Errorf("e2e/toolchain.sh: %w\n%s", err, out)
	}
	if _, err := docker("build", "-q", "--build-arg", "GO_IMAGE="+benchToolchain, "-t", benchImage, "."); err != nil {
		return 0, err
	}
	text, err := docker("image", "inspect", "-f", "{{.Size}}", benchImage)
	if err != nil {
		return 0, err
	}
	size, err := strconv.ParseFloat(text, 64)
	return size / 1e6, err
}

func measureContainer(dir string) (megabytes float64, err error) {
	server := balenatest.New(balenatest.Options{})
	trusted := filepath.Join(dir, "trusted")
	if err := os.Mkdir(trusted, 0o755); err != nil {
		return 0, err
	}
	srv, err := serveTLS(server, filepath.Join(trusted, "ca.pem"))
	if err != nil {
		return 0, err
	}
	defer srv.Close()
	if err := os.Chmod(dir, 0o755); err != nil { // the container's user reads below it
		return 0, err
	}
	args := []string{"run", "-d", "--network", "host", "--read-only", "--cap-drop", "ALL", "--security-opt", "no-new-privileges",
		"--memory", "32m", "--tmpfs", "/secrets:uid=65532,gid=65532,mode=0700,size=1m", "-v", trusted + ":/trusted:ro"}
	set := append(environment(server, srv.URL, "/secrets/balena-token"), "INJECTOR_CA_FILE=/trusted/ca.pem", "INJECTOR_TTL=10s",
		"INJECTOR_MAX_TTL=0")
	for _, e := range set {
		args = append(args, "-e", e)
	}
	id, err := docker(append(args, benchImage)...)
	if err != nil {
		return 0, err
	}
	defer func() { _, _ = docker("rm", "-f", id) }()
	for began := time.Now(); server.Count("extend") < fewExtensions; time.Sleep(20 * time.Millisecond) {
		if time.Since(began) > containerPatience {
			log, _ := docker("logs", id)
			return 0, fmt.Errorf("only %d extensions in the container:\n%s", server.Count("extend"), log)
		}
	}
	if megabytes, err = residentContainer(id); err != nil {
		return 0, err
	}
	fmt.Printf("container: %.1f MB resident over HTTPS after %d extensions (at most %.1f)\n", megabytes, server.Count("extend"), maxMB)
	if _, err := docker("stop", id); err != nil {
		return 0, err
	}
	if live := len(server.Live()); live > 0 {
		return 0, fmt.Errorf("%d keys are live after the container's stop", live)
	}
	return megabytes, nil
}

// residentContainer returns what the first process of a container has in memory.
func residentContainer(id string) (megabytes float64, err error) {
	pid, err := docker("inspect", "-f", "{{.State.Pid}}", id)
	if err != nil {
		return 0, err
	}
	n, err := strconv.Atoi(pid)
	if err != nil {
		return 0, err
	}
	kb, err := resident(n)
	return float64(kb) * 1024 / 1e6, err
}
