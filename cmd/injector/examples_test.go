package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/balena-injector/injector/balena/balenatest"
	"github.com/balena-injector/injector/render"
)

const examplesDir = "../../examples/apps"

// exampleSays is what each example prints, beside that of most of them.
var exampleSays = map[string]string{
	"json.sh": "good until 20", "netrc.sh": "> authorization: basic", "balena-cli.sh": "USERNAME: injector",
	"several-keys.sh":   `"actorType":"application"`,
	"notify-command.sh": "generation 1", "notify-signal.sh": "rereading", "exec-signal.sh": "another token",
	"notify-http.sh": `PUT /-/reload {"generation":1,`,
}

// TestExamples runs every example as it is: the app gets a good token, and nothing is left.
func TestExamples(t *testing.T) {
	scripts, err := filepath.Glob(examplesDir + "/*.sh")
	if err != nil || len(scripts) < 14 {
		t.Fatalf("%d examples, %v", len(scripts), err)
	}
	for _, path := range scripts {
		name := filepath.Base(path)
		t.Run(name, func(t *testing.T) {
			if name == "balena-cli.sh" {
				needClients(t, "node")
			}
			needClients(t, "curl")
			needClients(t, "python3")
			t.Parallel()
			runExample(t, path, exampleSays[name])
		})
	}
}

func runExample(t *testing.T, path, says string) {
	s := newStage(t, balenatest.Options{ListsAll: true})
	bin := filepath.Join(s.dir, "bin")
	if err := os.Mkdir(bin, 0o755); err != nil {
		t.Fatal(err)
	}
	// The examples call `injector`; here that is this test's binary.
	self := filepath.Join(bin, "injector")
	if strings.Contains(path, "inside-another-image") {
		copyFile(t, os.Args[0], self)
	} else {
		writeText(t, self, "#!/bin/sh\n"+become+"=1 exec "+os.Args[0]+" \"$@\"\n")
	}
	if err := os.Chmod(self, 0o755); err != nil {
		t.Fatal(err)
	}
	clients, err := filepath.Abs(filepath.Join(clientsDir, "node_modules", ".bin"))
	if err != nil {
		t.Fatal(err)
	}
	secrets := filepath.Join(s.dir, "secrets")
	mountSmall(t, secrets)
	cmd := exec.Command("sh", path)
	cmd.Env = []string{
		"PATH=" + bin + ":" + clients + ":" + os.Getenv("PATH"),
		"HOME=" + s.dir,
		"SECRETS=" + secrets,
		"BIN=" + filepath.Join(s.dir, "opt"),
		"BALENA_API_URL=" + s.url,
		"BALENA_USERNAME=" + s.env["BALENA_USERNAME"],
		"BALENA_PASSWORD=" + s.env["BALENA_PASSWORD"],
	}
	if strings.Contains(path, "inside-another-image") {
		cmd.Env = append(cmd.Env, become+"=1")
	}
	if strings.HasSuffix(path, "variable.sh") || strings.HasSuffix(path, "terraform.sh") || strings.Contains(path, "inside-another-image") {
		cmd.Env = append(cmd.Env, "INJECTOR_STATE_DIR="+filepath.Join(s.dir, "state")) // apart from other tests' of the same user
	}
	var out, log syncBuffer
	cmd.Stdout, cmd.Stderr = &out, &log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.WaitDelay = time.Second // a command of exec may live on, with our pipes
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	watchdog := time.AfterFunc(time.Minute, func() { _ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) })
	defer watchdog.Stop()
	if err := cmd.Wait(); err != nil {
		t.Errorf("%v\n%s\n%s", err, out.String(), log.String())
	}
	if says == "" {
		says = `"username":"injector"`
	}
	if !strings.Contains(strings.ToLower(strings.ReplaceAll(out.String(), `": "`, `":"`)), strings.ToLower(says)) {
		t.Errorf("it does not say %q:\n%s\n%s", says, out.String(), log.String())
	}
	if n := s.server.Count("mint"); n == 0 {
		t.Error("no key was minted")
	}
	s.wantLive(0)
}

// mountSmall makes a place in memory of the size that the README's own preparation gives it.
func mountSmall(t *testing.T, dir string) {
	t.Helper()
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=1m,mode=0700"); err != nil {
		t.Fatalf("mounting takes root: %v", err)
	}
	t.Cleanup(func() { _ = syscall.Unmount(dir, syscall.MNT_DETACH) })
}

// TestExamplesNeedNoMoreThanTheREADMEGives checks that each example which reads the API's URL has a value for it.
func TestExamplesNeedNoMoreThanTheREADMEGives(t *testing.T) {
	scripts, _ := filepath.Glob(examplesDir + "/*.sh")
	for _, path := range scripts {
		raw, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		const given = `export BALENA_API_URL="${BALENA_API_URL:-https://api.balena-cloud.com}"`
		text := strings.Replace(string(raw), given, "", 1)
		if strings.Contains(text, "BALENA_API_URL") && text == string(raw) {
			t.Errorf("%s reads BALENA_API_URL, which is optional", path)
		}
	}
}

// TestDocsOfApps checks that the page which leads users to their five lines names every example and
// every preset, and no example that is not there.
func TestDocsOfApps(t *testing.T) {
	raw, err := os.ReadFile("../../docs/apps.md")
	if err != nil {
		t.Fatal(err)
	}
	scripts, _ := filepath.Glob(examplesDir + "/*.sh")
	for _, path := range scripts {
		contains(t, string(raw), "examples/apps/"+filepath.Base(path))
	}
	for _, preset := range render.Presets() {
		contains(t, string(raw), "`"+preset+"`")
	}
	for _, m := range regexp.MustCompile(`examples/apps/([a-z-]+\.[a-z.]+)`).FindAllStringSubmatch(string(raw), -1) {
		if _, err := os.Stat(filepath.Join(examplesDir, m[1])); err != nil {
			t.Error(err)
		}
	}
}
