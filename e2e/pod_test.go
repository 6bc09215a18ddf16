package e2e

import (
	"crypto/rand"
	"fmt"
	"net/http"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// The images that the manifests name.
const (
	injectorImage = "balena-token-injector"
	appImage      = "busybox:stable"
)

// login is the Secret balena-login.
type login struct{ username, password string }

// pod runs a manifest's pod on Docker as a kubelet does: its containers, users, groups, volumes, probes and
// order of start and stop. What it cannot show is what only a cluster has: scheduling, admission, cgroups of pods.
type pod struct {
	*standin
	name    string
	spec    corev1.PodSpec
	login   login
	running []string // in the order of their start
}

// newPod is a home's pod, of which nothing runs but its network, with a stand-in for the API in it, and its volumes.
// Image, credential and API's URL are changed, as a user has to; set are further variables of the injector.
func newPod(t *testing.T, home string, set map[string]string) *pod {
	t.Helper()
	engine(t)
	found := pods(t, home)
	if len(found) != 1 {
		t.Fatalf("%d pods", len(found))
	}
	p := &pod{name: "pod" + strings.ToLower(rand.Text()[:8]), spec: found[0].Spec, login: login{"injector", password}}
	p.standin = &standin{t, func() string { return p.ip("api") }}
	for _, containers := range [][]corev1.Container{p.spec.InitContainers, p.spec.Containers} {
		for i := range containers {
			edit(&containers[i], set)
		}
	}
	t.Cleanup(p.remove)
	sh(t, "docker", "network", "create", "--internal", p.name) // it leads to the API alone
	p.docker("run", "-d",
		"--name",
		p.name+"-api",
		"--network",
		p.name,
		"--network-alias",
		"api",
		"--entrypoint",
		"/standin",
		demoImage,
		"-listen",
		":8990",
	)
	p.sandbox()
	return p
}

func edit(c *corev1.Container, set map[string]string) {
	c.Image = map[string]string{injectorImage: image, appImage: busybox}[c.Image]
	for i := range c.Env {
		if c.Env[i].Name == "BALENA_API_URL" {
			c.Env[i].Value = "http://api:8990"
			c.Env = append(c.Env, corev1.EnvVar{Name: "INJECTOR_ALLOW_HTTP", Value: "true"})
			for name, value := range set {
				c.Env = append(c.Env, corev1.EnvVar{Name: name, Value: value})
			}
		}
	}
}

func (p *pod) docker(args ...string) string { p.t.Helper(); return sh(p.t, "docker", args...) }

func (p *pod) ip(container string) string {
	p.t.Helper()
	return p.docker("inspect", "-f", "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}", p.name+"-"+container)
}

// sandbox is what lives as long as the pod: its network and its volumes.
func (p *pod) sandbox() {
	p.t.Helper()
	group := int64(0)
	if sc := p.spec.SecurityContext; sc != nil && sc.FSGroup != nil {
		group = *sc.FSGroup
	}
	args := []string{"run", "-d", "--name", p.name + "-sandbox", "--network", p.name, "--ipc", "shareable"}
	for _, v := range p.spec.Volumes {
		args = append(args, "-v", p.volume(v, group)+":/volumes/"+v.Name)
	}
	p.docker(append(args, busybox, "sleep", "600")...)
	for _, v := range p.spec.Volumes {
		// What the kubelet does for an fsGroup; tmpfs has it from its options, but on a disk it must be done.
		p.root(fmt.Sprintf("chgrp %d /volumes/%s && chmod 3777 /volumes/%s", group, v.Name, v.Name))
		if v.Secret != nil {
			p.writeSecret(v, group)
		}
	}
}

// volume makes a volume of Docker for one of the pod.
func (p *pod) volume(v corev1.Volume, group int64) string {
	p.t.Helper()
	name := p.name + "-" + v.Name
	args := []string{"volume", "create"}
	if v.EmptyDir == nil || v.EmptyDir.Medium == corev1.StorageMediumMemory {
		size := int64(1 << 20)
		if v.EmptyDir != nil {
			size = v.EmptyDir.SizeLimit.Value()
		}
		args = append(args, "--opt", "type=tmpfs", "--opt", "device=tmpfs", "--opt",
			fmt.Sprintf("o=size=%d,mode=3777,uid=0,gid=%d", size, group))
	}
	p.docker(append(args, name)...)
	return name
}

// root runs a shell line as root beside the volumes.
func (p *pod) root(line string) string {
	p.t.Helper()
	return p.docker("exec", p.name+"-sandbox", "sh", "-ec", line)
}

// writeSecret writes the login into its volume, or updates it, as the kubelet does: a new directory, and a link
// that is swapped.
func (p *pod) writeSecret(v corev1.Volume, group int64) {
	p.t.Helper()
	values := map[string]string{"username": p.login.username, "password": p.login.password}
	data := "..data_" + rand.Text()[:8]
	lines := []string{"cd /volumes/" + v.Name, "mkdir " + data}
	for _, item := range v.Secret.Items {
		lines = append(lines, fmt.Sprintf("printf %%s '%s' >%s/%s", values[item.Key], data, item.Path),
			fmt.Sprintf("chgrp %d %s/%s && chmod %o %s/%s", group, data, item.Path, *v.Secret.DefaultMode, data, item.Path))
	}
	lines = append(lines, "ln -s "+data+" ..tmp && mv -T ..tmp ..data")
	for _, item := range v.Secret.Items {
		lines = append(lines, fmt.Sprintf("[ -L %s ] || ln -s ..data/%s %s", item.Path, item.Path, item.Path))
	}
	p.root(strings.Join(lines, "\n"))
}

// setPassword updates the Secret.
func (p *pod) setPassword(password string) {
	p.t.Helper()
	p.login.password = password
	for _, v := range p.spec.Volumes {
		if v.Secret != nil {
			p.writeSecret(v, *p.spec.SecurityContext.FSGroup)
		}
	}
}

// run starts a container with all that its manifest says.
func (p *pod) run(c *corev1.Container) {
	p.t.Helper()
	sandbox := "container:" + p.name + "-sandbox"
	// Without runAsGroup the group is that of the image's /etc/passwd, or 0.
	args := []string{"run", "-d", "--name", p.name + "-" + c.Name, "--network", sandbox, "--ipc", sandbox, "--no-healthcheck",
		"--user", fmt.Sprintf("%d:0", *c.SecurityContext.RunAsUser), "--group-add", fmt.Sprint(*p.spec.SecurityContext.FSGroup),
		"--read-only", "--cap-drop", "ALL", "--security-opt", "no-new-privileges",
		"--memory", fmt.Sprint(c.Resources.Limits.Memory().Value())}
	for _, e := range c.Env {
		value := e.Value
		if e.ValueFrom != nil {
			value = map[string]string{"username": p.login.username, "password": p.login.password}[e.ValueFrom.SecretKeyRef.Key]
		}
		args = append(args, "-e", e.Name+"="+value)
	}
	for _, m := range c.VolumeMounts {
		mount := p.name + "-" + m.Name + ":" + m.MountPath
		if m.ReadOnly {
			mount += ":ro"
		} else {
			mount += ":nocopy" // a kubelet copies nothing of the image into a volume, nor its mode
		}
		args = append(args, "-v", mount)
	}
	command := c.Args
	if len(c.Command) > 0 {
		args = append(args, "--entrypoint", c.Command[0])
		command = append(c.Command[1:], command...)
	}
	p.docker(append(append(args, c.Image), command...)...)
	p.running = append(p.running, c.Name)
}

func sidecar(c *corev1.Container) bool {
	return c.RestartPolicy != nil && *c.RestartPolicy == corev1.ContainerRestartPolicyAlways
}

// start runs the init containers one after the other, a native sidecar until its startup probe says yes, and then
// the others.
func (p *pod) start() {
	p.t.Helper()
	for i := range p.spec.InitContainers {
		c := &p.spec.InitContainers[i]
		p.run(c)
		if sidecar(c) {
			p.eventually(c.Name+"'s startup probe", 30*time.Second, func() bool { return p.probe(c, c.StartupProbe) })
		} else if code := p.docker("wait", p.name+"-"+c.Name); code != "0" {
			p.t.Fatalf("%s: exit %s", c.Name, code)
		}
	}
	for i := range p.spec.Containers {
		p.run(&p.spec.Containers[i])
	}
}

// probe asks as the kubelet does: over the pod's address, or in the container.
func (p *pod) probe(c *corev1.Container, probe *corev1.Probe) bool {
	p.t.Helper()
	if probe.Exec != nil {
		return exec.Command("docker", append([]string{"exec", p.name + "-" + c.Name}, probe.Exec.Command...)...).Run() == nil
	}
	port := probe.HTTPGet.Port.IntValue()
	for _, named := range c.Ports {
		if named.Name == probe.HTTPGet.Port.StrVal {
			port = int(named.ContainerPort)
		}
	}
	client := http.Client{Timeout: time.Duration(probe.TimeoutSeconds) * time.Second}
	answer, err := client.Get(fmt.Sprintf("http://%s:%d%s", p.ip("sandbox"), port, probe.HTTPGet.Path))
	if err != nil {
		return false
	}
	_ = answer.Body.Close()
	return answer.StatusCode < 400
}

// ready waits until every probe says yes.
func (p *pod) ready() {
	p.t.Helper()
	for _, containers := range [][]corev1.Container{p.spec.InitContainers, p.spec.Containers} {
		for i := range containers {
			c := &containers[i]
			for _, probe := range []*corev1.Probe{c.StartupProbe, c.ReadinessProbe} {
				if probe != nil {
					p.eventually(c.Name+" is ready", 20*time.Second, func() bool { return p.probe(c, probe) })
				}
			}
		}
	}
}

// stop ends the pod: its containers at once, and, when they have ended, the native sidecars, the last first. All
// of it has the grace period.
func (p *pod) stop() {
	p.t.Helper()
	begun := time.Now()
	grace := time.Duration(*p.spec.TerminationGracePeriodSeconds) * time.Second
	left := func() string { return fmt.Sprint(max(2, int((grace - time.Since(begun)).Seconds()))) }
	var all sync.WaitGroup
	for _, c := range p.spec.Containers {
		all.Go(func() { _ = exec.Command("docker", "stop", "-t", left(), p.name+"-"+c.Name).Run() })
	}
	all.Wait()
	p.stopSidecars(left())
	if took := time.Since(begun); took > grace {
		p.t.Errorf("the stop took %v of %v", took, grace)
	}
}

func (p *pod) stopSidecars(within string) {
	p.t.Helper()
	for i := len(p.spec.InitContainers) - 1; i >= 0; i-- {
		if c := &p.spec.InitContainers[i]; sidecar(c) {
			p.docker("stop", "-t", within, p.name+"-"+c.Name)
			p.wantExit(c.Name, "0")
		}
	}
}

func (p *pod) wantExit(container, code string) {
	p.t.Helper()
	if got := p.docker("inspect", "-f", "{{.State.Running}} {{.State.ExitCode}}", p.name+"-"+container); got != "false "+code {
		p.t.Errorf("%s: %s, want exit code %s\n%s", container, got, code, p.logs(container))
	}
}

func (p *pod) logs(container string) string {
	out, _ := exec.Command("docker", "logs", p.name+"-"+container).CombinedOutput()
	return string(out)
}

func (p *pod) says(container, what string) {
	p.t.Helper()
	p.eventually(container+" says "+what, 20*time.Second, func() bool { return strings.Contains(p.logs(container), what) })
}

// read is a file in a volume.
func (p *pod) read(file string) string { p.t.Helper(); return p.root("cat /volumes/" + file) }

// remove removes what is left, after a look at it if the test has failed.
func (p *pod) remove() {
	names := []string{p.name + "-sandbox", p.name + "-api"}
	for _, c := range p.running {
		names = append(names, p.name+"-"+c)
		if p.t.Failed() {
			p.t.Logf("%s says:\n%s", c, p.logs(c))
		}
	}
	_ = exec.Command("docker", append([]string{"rm", "-f", "-v"}, names...)...).Run()
	for _, v := range p.spec.Volumes {
		_ = exec.Command("docker", "volume", "rm", p.name+"-"+v.Name).Run()
	}
	_ = exec.Command("docker", "network", "rm", p.name).Run()
}

// The kubelet's own way with a Secret, which the tests above rely on.
func TestPodSecretIsSwapped(t *testing.T) {
	t.Parallel()
	p := newPod(t, "sidecar", nil)
	before := p.root("readlink /volumes/balena-login/..data")
	p.setPassword("another")
	if now := p.root("readlink /volumes/balena-login/..data"); now == before || p.read("balena-login/password") != "another" {
		t.Error("the Secret was not swapped")
	}
	if got := p.root("stat -L -c %a:%u:%g /volumes/balena-login/password /volumes/balena-token"); got != "440:0:2000\n3777:0:2000" {
		t.Error(got)
	}
}
