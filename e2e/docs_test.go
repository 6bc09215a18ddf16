package e2e

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// commandsOf are the indented lines of a page, which are what a user copies into a shell.
func commandsOf(t *testing.T, page string) string {
	t.Helper()
	raw, err := os.ReadFile("../docs/" + page)
	if err != nil {
		t.Fatal(err)
	}
	var commands strings.Builder
	fenced := false // files, and what they look like
	for line := range strings.Lines(string(raw)) {
		if strings.HasPrefix(line, "```") {
			fenced = !fenced
		}
		if command, ok := strings.CutPrefix(line, "    "); ok && !fenced {
			commands.WriteString(command)
		}
	}
	return commands.String()
}

// reader is a user with a page: a copy of the project, and a shell.
type reader struct {
	t   *testing.T
	dir string
	bin string // found first
	env []string
}

func newReader(t *testing.T) *reader {
	t.Helper()
	engine(t)
	r := &reader{t: t, dir: sourceIn(t), bin: t.TempDir()}
	sh(t, "docker", "tag", busybox, appImage)
	r.program("sudo", `exec "$@"`) // these tests are root
	return r
}

// copyOfTheProject is what a clone of the working tree would have.
func copyOfTheProject(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	files, err := exec.Command("git", "-C", "..", "ls-files", "-z", "-co", "--exclude-standard").Output()
	if err != nil {
		t.Fatal(err)
	}
	copied := exec.Command("tar", "-C", "..", "--null", "-T", "-", "-cf", "-")
	copied.Stdin = bytes.NewReader(files)
	archive, err := copied.Output()
	if err != nil {
		t.Fatal(err)
	}
	unpack := exec.Command("tar", "-C", dir, "-xf", "-")
	unpack.Stdin = bytes.NewReader(archive)
	if out, err := unpack.CombinedOutput(); err != nil {
		t.Fatal(err, string(out))
	}
	return dir
}

// program puts a program of that name into the way.
func (r *reader) program(name, script string) {
	r.t.Helper()
	if err := os.WriteFile(filepath.Join(r.bin, name), []byte("#!/bin/sh\nset -e\n"+script+"\n"), 0o700); err != nil {
		r.t.Fatal(err)
	}
}

// engineFor is a docker command for machines that reach no registry: builds get the tests' toolchain, and more is
// what else is done otherwise.
func (r *reader) engineFor(more string) {
	r.t.Helper()
	docker, err := exec.LookPath("docker")
	if err != nil {
		r.t.Fatal(err)
	}
	r.program("docker", "export DOCKER_BUILDKIT=0 COMPOSE_DOCKER_CLI_BUILD=0 GO_IMAGE="+toolchain+"\ndocker="+docker+`
case "$1" in
build) shift; exec $docker build --build-arg GO_IMAGE="$GO_IMAGE" "$@" ;;
`+more+`
*) exec $docker "$@" ;;
esac`)
}

// follows runs a page's commands one after the other; each must succeed.
func (r *reader) follows(commands string) string {
	r.t.Helper()
	cmd := exec.Command("sh", "-eux")
	cmd.Dir = r.dir
	cmd.Env = append(os.Environ(), "PATH="+r.bin+":"+os.Getenv("PATH"), "BALENA_USERNAME=injector", "BALENA_PASSWORD="+password)
	cmd.Env = append(cmd.Env, r.env...)
	cmd.Stdin = strings.NewReader(commands)
	out, err := cmd.CombinedOutput()
	if err != nil {
		r.t.Errorf("%v\n%s", err, out)
	}
	return string(out)
}

func (r *reader) sees(out string, wants ...string) {
	r.t.Helper()
	for _, want := range wants {
		if !strings.Contains(out, want) {
			r.t.Errorf("%q is not in:\n%s", want, out)
		}
	}
}

func TestDocsOfCompose(t *testing.T) {
	t.Parallel()
	r := newReader(t)
	override := filepath.Join(r.dir, "override.yaml")
	text := `services:
  standin: {image: ` + demoImage + `, entrypoint: [/standin, -listen, ':8990']}
  injector: {depends_on: {standin: {condition: service_started}},
   environment: {INJECTOR_ALLOW_HTTP: "true", BALENA_API_URL: "http://standin:8990", BALENA_USERNAME: injector}}
`
	if err := os.WriteFile(override, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	// The demo's own project has no override. Nobody presses Ctrl-C here, and the stand-in's last word must be seen.
	r.engineFor(`compose) shift
	case "$*" in
	*demo.yaml*) export COMPOSE_PROJECT_NAME=e2edocsdemo ;;
	*) export COMPOSE_PROJECT_NAME=e2edocs COMPOSE_FILE=compose.yaml:` + override + ` ;;
	esac
	case "$*" in
	*"up --build") exec docker-compose "$@" -d ;;
	stop) docker-compose stop; exec docker-compose logs standin ;;
	esac
	exec docker-compose "$@" ;;`)
	t.Cleanup(func() {
		cmd := exec.Command("sh", "-c", "cd my-app && docker compose down -v; docker compose -f ../examples/compose/demo.yaml down -v")
		cmd.Dir, cmd.Env = r.dir, append(os.Environ(), "PATH="+r.bin+":"+os.Getenv("PATH"), "BALENA_USERNAME=x")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Log(err, string(out))
		}
	})
	out := r.follows(commandsOf(t, "compose.md"))
	r.sees(out, "app: the token's md5 is ", "injector         run, pid", "adopting the key of the last start", "revoked a key",
		"standin: 0 live keys at the end")
}

// TestDocsOfTheMigration follows docs/migrate.md to the end and back, with an exporter that is called, listens and runs as
// the real one does.
func TestDocsOfTheMigration(t *testing.T) {
	t.Parallel()
	r := newReader(t)
	r.env = []string{"EXPORTER_IMAGE=" + r.exporterImage()}
	override := filepath.Join(r.dir, "override.yaml")
	text := `services:
  standin: {image: ` + demoImage + `, entrypoint: [/standin, -listen, ':8990']}
  exporter: {depends_on: {standin: {condition: service_started}},
   environment: {INJECTOR_ALLOW_HTTP: "true", BALENA_API_URL: "http://standin:8990", BALENA_USERNAME: injector}}
`
	if err := os.WriteFile(override, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	r.engineFor(`compose) shift
	export COMPOSE_PROJECT_NAME=e2emigration COMPOSE_FILE=compose.yaml:` + override + `
	case "$*" in
	"up -d") docker-compose up -d
		until [ "$(docker inspect -f '{{.State.Health.Status}}' e2emigration_exporter_1)" = healthy ]; do sleep 1; done
		exit ;;
	stop) docker-compose stop exporter; docker-compose stop; exec docker-compose logs standin ;;
	esac
	exec docker-compose "$@" ;;`)
	t.Cleanup(func() {
		cmd := exec.Command("sh", "-c", "cd exporter && docker compose down -v")
		cmd.Dir, cmd.Env = r.dir, append(os.Environ(), "PATH="+r.bin+":"+os.Getenv("PATH"), "BALENA_USERNAME=x")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Log(err, string(out))
		}
	})
	out := r.follows(commandsOf(t, "migrate.md"))
	r.sees(out, "started the command", "injector         exec, pid", "ready            yes", "version v0.1.0",
		`balena_devices_online{fleet_name="`, "revoked a key", "standin: 0 live keys at the end")
}

// exporterImage makes an image, under a name of the tests, that runs as the exporter's own does: its command, directory, user and port.
func (r *reader) exporterImage() (name string) {
	r.t.Helper()
	dir := r.t.TempDir()
	build := exec.Command("go", "build", "-o", filepath.Join(dir, "python"), "./exporter")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		r.t.Fatal(err, string(out))
	}
	text := "FROM " + busybox + "\nWORKDIR /usr/src/app\nCOPY python /bin/python\nUSER 65534\nCMD [\"python\", \"./main.py\"]\n"
	if err := os.WriteFile(filepath.Join(dir, "Dockerfile"), []byte(text), 0o600); err != nil {
		r.t.Fatal(err)
	}
	name = image + "-exporter"
	sh(r.t, "docker", "build", "-q", "-t", name, dir)
	return name
}

func TestDocsOfExec(t *testing.T) {
	t.Parallel()
	r := newReader(t)
	network := strings.ToLower(filepath.Base(r.bin)) + "-docs-exec"
	sh(t, "docker", "network", "create", "--internal", network)
	api := sh(t, "docker", "run", "-d", "--network", network, "--network-alias", "api", "--entrypoint", "/standin", demoImage, "-listen",
		":8990")
	t.Cleanup(func() {
		_ = exec.Command("docker", "rm", "-f", api, "my-app").Run()
		_ = exec.Command("docker", "network", "rm", network).Run()
	})
	s := &standin{t, func() string {
		return sh(t, "docker", "inspect", "-f", "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}", api)
	}}
	r.engineFor(
		`run) shift; exec $docker run --network ` + network + ` -e BALENA_API_URL=http://api:8990 -e INJECTOR_ALLOW_HTTP=true "$@" ;;`,
	)
	out := r.follows(commandsOf(t, "exec.md"))
	r.sees(out, "app: a token of 32 characters", "injector         exec, pid", "revoked a key", "nothing is left that could be revoked")
	s.wantLive(0)
}

func TestDocsOfKubernetes(t *testing.T) {
	t.Parallel()
	h := newNamespace(t)
	r := newReader(t)
	r.program("kubectl", "exec "+filepath.Join(toolsDir, "kubectl")+" --kubeconfig "+h.c.path("kubeconfig")+" -n "+h.namespace+` "$@"`)
	r.engineFor(`push) $docker save "$2" | ctr -a ` + h.c.path("containerd.sock") + ` -n k8s.io images import - ; exit ;;`)
	r.env = []string{"REGISTRY=registry.example.com"}
	// The API's URL is a user's to change: here to that of the stand-in, which has no TLS.
	for _, file := range []string{"component/sidecar.yaml", "plain/job.yaml"} {
		path := filepath.Join(r.dir, "examples/k8s", file)
		raw, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		text := h.edited(string(raw), nil)
		text = strings.ReplaceAll(
			text,
			`- {name: BALENA_API_URL,`,
			`- {name: INJECTOR_ALLOW_HTTP, value: "true"}`+"\n            - {name: BALENA_API_URL,",
		)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	out := r.follows(commandsOf(t, "kubernetes.md"))
	r.sees(out, "successfully rolled out", "app: the token's md5 is ", "injector         run, pid", "job.batch/job condition met",
		"secret/balena-login replaced")
	h.wantLive(0)
	if n := h.mints(); n != 2 {
		t.Errorf("%d mints, of the app and of the Job", n)
	}
}

// TestSessionOfTheReadme runs the README's session in a shell, which must end without a key or file.
func TestSessionOfTheReadme(t *testing.T) {
	dir := sourceIn(t)
	raw, err := os.ReadFile("../README.md")
	if err != nil {
		t.Fatal(err)
	}
	_, session, found := strings.Cut(string(raw), "```sh\n")
	session, _, closed := strings.Cut(session, "```")
	if !found || !closed {
		t.Fatal("the README has no session")
	}
	// Job control as in a shell that somebody types into; the stand-in says at its end what is left.
	session = strings.Replace(session, ">/dev/null &", ">standin.log 2>&1 &", 1)
	cmd := exec.Command("bash", "-c", "set -meux\n"+session+"\nwait %1 || true\nls -A /dev/shm/try; cat standin.log")
	cmd.Dir = dir
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for _, want := range []string{"ok  API http", `"username":"injector"`, "adopting the key", "It will be extended in", "revoked a key",
		"0 live keys at the end"} {
		if !strings.Contains(string(out), want) {
			t.Errorf("%q is not in:\n%s", want, out)
		}
	}
}
