package e2e

import (
	"crypto/rand"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

const password = "correct horse battery"

// project is one compose file that runs beside a stand-in for the API, in networks and volumes of its own.
type project struct {
	*standin
	name    string
	file    string
	service string // the one that has the injector
	dir     string
	env     map[string]string // of compose
	set     map[string]string // of the injector
	extra   string            // further lines of the override
}

// newProject is the compose file with short times; nothing runs yet. At the test's end all is stopped, as a
// user would stop it, and no key may be live.
func newProject(t *testing.T, file, service string) *project {
	t.Helper()
	engine(t)
	p := &project{name: "e2e" + strings.ToLower(rand.Text()[:8]), file: "../examples/compose/" + file, service: service, dir: t.TempDir()}
	p.standin = &standin{t, p.address}
	secret := filepath.Join(p.dir, "password")
	p.env = map[string]string{
		"INJECTOR_IMAGE":         image,
		"APP_IMAGE":              busybox,
		"BALENA_USERNAME":        "injector",
		"BALENA_API_URL":         "http://standin:8990",
		"BALENA_PASSWORD_FILE":   secret,
		"BALENA_PASSWORD":        password,
		"COMPOSE_IGNORE_ORPHANS": "1",
	}
	p.set = map[string]string{"INJECTOR_ALLOW_HTTP": "true", "INJECTOR_CHECK_INTERVAL": "1s"}
	if err := os.WriteFile(secret, []byte(password+"\n"), 0o444); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.end)
	return p
}

// override adds the stand-in to the user's file.
func (p *project) override() string {
	var b strings.Builder
	if p.file == "../examples/compose/device.yaml" {
		b.WriteString("version: \"2.4\"\n")
	}
	fmt.Fprintf(&b, "services:\n  standin:\n    image: %s\n    entrypoint: [/standin, -listen, ':8990']\n", demoImage)
	fmt.Fprintf(&b, "  %s:\n    depends_on: {standin: {condition: service_started}}\n    environment:\n", p.service)
	for k, v := range p.set {
		fmt.Fprintf(&b, "      %s: %q\n", k, v)
	}
	b.WriteString(p.extra)
	path := filepath.Join(p.dir, "override.yaml")
	if err := os.WriteFile(path, []byte(b.String()), 0o600); err != nil {
		p.t.Fatal(err)
	}
	return path
}

func (p *project) command(args ...string) *exec.Cmd {
	name, first := "docker-compose", []string{}
	if _, err := exec.LookPath(name); err != nil {
		name, first = "docker", []string{"compose"}
	}
	cmd := exec.Command(name, append(append(first, "-p", p.name, "-f", p.file, "-f", p.override()), args...)...)
	cmd.Env = os.Environ()
	for k, v := range p.env {
		cmd.Env = append(cmd.Env, k+"="+v)
	}
	return cmd
}

func (p *project) compose(args ...string) string {
	p.t.Helper()
	out, err := p.command(args...).CombinedOutput()
	if err != nil {
		p.t.Fatalf("compose %q: %v\n%s\n%s", args, err, out, p.logs())
	}
	return string(out)
}

func (p *project) up(services ...string) {
	p.t.Helper()
	p.compose(append([]string{"up", "-d"}, services...)...)
}

func (p *project) logs(services ...string) string {
	out, _ := p.command(append([]string{"logs", "--no-color"}, services...)...).CombinedOutput()
	return string(out)
}

// end stops what uses keys, looks at what is left, and removes all.
func (p *project) end() {
	p.t.Helper()
	if p.t.Failed() {
		p.t.Log(p.logs())
	}
	if p.container("standin") != "" {
		services := strings.Fields(strings.ReplaceAll(p.compose("config", "--services"), "standin", ""))
		begun := time.Now()
		p.compose(append([]string{"stop"}, services...)...)
		if took := time.Since(begun); took > 12*time.Second {
			p.t.Errorf("the stop took %v", took)
		}
		if live := p.live(); len(live) > 0 {
			p.t.Errorf("live keys after the stop: %v", live)
		}
	}
	if out, err := p.command("down", "-v", "-t", "1").CombinedOutput(); err != nil {
		p.t.Errorf("down: %v\n%s", err, out)
	}
}

// container is the id of a service's container, "" if there is none.
func (p *project) container(service string) string {
	p.t.Helper()
	return sh(p.t, "docker", "ps", "-aq", "--filter", "label=com.docker.compose.project="+p.name, "--filter",
		"label=com.docker.compose.service="+service)
}

func (p *project) inspect(service, format string) string {
	p.t.Helper()
	return sh(p.t, "docker", "inspect", "-f", format, p.container(service))
}

func (p *project) started(service string) time.Time {
	p.t.Helper()
	at, err := time.Parse(time.RFC3339Nano, p.inspect(service, "{{.State.StartedAt}}"))
	if err != nil {
		p.t.Fatal(err)
	}
	return at
}

// in runs a shell line in a service's container.
func (p *project) in(service, line string) (string, error) {
	out, err := exec.Command("docker", "exec", p.container(service), "sh", "-c", line).CombinedOutput()
	return strings.TrimSpace(string(out)), err
}

func (p *project) read(service, file string) string {
	p.t.Helper()
	out, err := p.in(service, "cat "+file)
	if err != nil {
		p.t.Fatalf("%s: %v %s", file, err, out)
	}
	return out
}

// address is where the stand-in is, seen from this machine; it can change when its network does.
func (p *project) address() string {
	p.t.Helper()
	return p.inspect("standin", "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}")
}

func (p *project) saysEventually(service, what string) {
	p.t.Helper()
	p.eventually(service+" says "+what, 20*time.Second, func() bool { return strings.Contains(p.logs(service), what) })
}
