package e2e

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// Where the cluster is: on loopback, and in a bridge's network that is made for it.
const (
	clusterBinary = "../bin/cluster" // `make cluster` builds it
	bridge        = "injector0"
	gateway       = "10.99.0.1"
	subnet        = "10.99.0.0/24"
	etcdURL       = "http://127.0.0.1:23790"
	etcdPeerURL   = "http://127.0.0.1:23800"
	apiPort       = "26443"
)

// cluster is a real Kubernetes cluster of one node on this machine: its own etcd, API server, controllers,
// scheduler and kubelet, and a containerd beside the machine's.
type cluster struct {
	dir   string
	parts []*exec.Cmd // in the order of their start
}

// theCluster is started by the first test that needs it, and stopped when all tests are over.
var theCluster = sync.OnceValues(func() (*cluster, error) {
	if err := build(); err != nil {
		return nil, err
	}
	c := &cluster{dir: filepath.Join(toolsDir, "cluster")}
	began := time.Now()
	if err := c.start(); err != nil {
		return nil, errors.Join(err, c.stop())
	}
	fmt.Printf("Kubernetes is up after %v\n", time.Since(began).Round(time.Second))
	startedCluster = c
	return c, nil
})

var startedCluster *cluster

// needCluster makes sure of a cluster. Without its binary a test is left out, but for CI, which fails.
func needCluster(t *testing.T) *cluster {
	t.Helper()
	if _, err := os.Stat(clusterBinary); err != nil {
		if os.Getenv("CI_HAS_ALL") != "" {
			t.Fatal("no Kubernetes: ", err)
		}
		t.Skip("LEFT OUT: Kubernetes is not built; `make cluster` does it, in 5 to 10 minutes")
	}
	engine(t)
	c, err := theCluster()
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func (c *cluster) start() error {
	for _, step := range []func() error{c.prepare, c.network, c.startContainerd, c.loadImages, c.startControl, c.startNode} {
		if err := step(); err != nil {
			return err
		}
	}
	return nil
}

func (c *cluster) path(name string) string { return filepath.Join(c.dir, name) }

// prepare writes the configuration of all parts.
func (c *cluster) prepare() error {
	plugins := "/opt/cni/bin"
	if _, err := os.Stat("/usr/lib/cni/bridge"); err == nil {
		plugins = "/usr/lib/cni" // Debian's
	}
	files := map[string]string{
		"kubeconfig": `apiVersion: v1
kind: Config
clusters: [{name: test, cluster: {server: "https://127.0.0.1:` + apiPort + `", insecure-skip-tls-verify: true}}]
users: [{name: test, user: {token: test}}]
contexts: [{name: test, context: {cluster: test, user: test}}]
current-context: test
`,
		"tokens": "test,test,1,system:masters\n",
		"containerd.toml": `version = 2
root = "` + c.path("containerd") + `"
state = "` + c.path("containerd-state") + `"
[grpc]
  address = "` + c.path("containerd.sock") + `"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "` + pauseImage + `"
  restrict_oom_score_adj = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "` + plugins + `"
    conf_dir = "` + c.path("cni") + `"
`,
		"cni/net.conflist": `{"cniVersion": "0.4.0", "name": "pods", "plugins": [{"type": "bridge",
 "bridge": "` + bridge + `", "isGateway": true,
 "ipam": {"type": "host-local", "dataDir": "` + c.path("cni-addresses") + `",
 "ranges": [[{"subnet": "` + subnet + `"}]], "routes": [{"dst": "0.0.0.0/0"}]}}]}
`,
		// A Secret's update is seen within seconds instead of a minute or two. On a disk that is nearly full the kubelet would
		// remove images that no pod uses at the moment, and nothing brings them back.
		"kubelet.yaml": `apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
address: ` + gateway + `
port: 26250
healthzPort: 0
authentication: {anonymous: {enabled: true}, webhook: {enabled: false}}
authorization: {mode: AlwaysAllow}
cgroupDriver: cgroupfs
cgroupRoot: ` + cgroupRoot + `
failSwapOn: false
enforceNodeAllocatable: []
evictionHard: {memory.available: 50Mi}
imageGCHighThresholdPercent: 100
containerRuntimeEndpoint: unix://` + c.path("containerd.sock") + `
podLogsDir: ` + c.path("logs") + `
syncFrequency: 5s
`,
	}
	for name, text := range files {
		if err := os.MkdirAll(filepath.Dir(c.path(name)), 0o700); err != nil {
			return err
		}
		if err := os.WriteFile(c.path(name), []byte(text), 0o600); err != nil {
			return err
		}
	}
	return c.do("openssl", "genrsa", "-out", c.path("accounts.key"), "2048")
}

const (
	pauseImage = "registry.k8s.io/pause:3.10"
	cgroupRoot = "/"
)

func (c *cluster) do(name string, args ...string) error {
	if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
		return fmt.Errorf("%s %q: %w\n%s", name, args, err, out)
	}
	return nil
}

// network makes the bridge that the pods will be on. Docker drops what is not its own.
func (c *cluster) network() error {
	c.removeNetwork() // of a run that was killed
	return errors.Join(c.do("ip", "link", "add", bridge, "type", "bridge"), c.do("ip", "addr", "add", gateway+"/24", "dev", bridge),
		c.do("ip", "link", "set", bridge, "up"), c.do("iptables", "-I", "FORWARD", "-i", bridge, "-o", bridge, "-j", "ACCEPT"))
}

func (c *cluster) removeNetwork() {
	_ = exec.Command("iptables", "-D", "FORWARD", "-i", bridge, "-o", bridge, "-j", "ACCEPT").Run()
	_ = exec.Command("ip", "link", "del", bridge).Run()
}

// run starts a part, whose output goes to a file.
func (c *cluster) run(part string, name string, args ...string) error {
	log, err := os.Create(c.path(part + ".log"))
	if err != nil {
		return err
	}
	defer func() { _ = log.Close() }()
	cmd := exec.Command(name, args...)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM, Setpgid: true}
	if err := cmd.Start(); err != nil {
		return err
	}
	c.parts = append(c.parts, cmd)
	return nil
}

func (c *cluster) ctr(args ...string) *exec.Cmd {
	return exec.Command("ctr", append([]string{"-a", c.path("containerd.sock"), "-n", "k8s.io"}, args...)...)
}

func (c *cluster) startContainerd() error {
	if err := c.run("containerd", "containerd", "-c", c.path("containerd.toml")); err != nil {
		return err
	}
	return within(20*time.Second, "containerd", func() error { return c.ctr("version").Run() })
}

// loadImages hands the engine's images over. The pause image is the app's, whose sh waits.
func (c *cluster) loadImages() error {
	dir := c.path("pause")
	if err := errors.Join(os.Mkdir(dir, 0o700), os.WriteFile(filepath.Join(dir, "Dockerfile"),
		[]byte("FROM "+busybox+"\nENTRYPOINT [\"sleep\", \"infinity\"]\n"), 0o600)); err != nil {
		return err
	}
	cmd := exec.Command("docker", "build", "-q", "-t", pauseImage, dir)
	cmd.Env = append(os.Environ(), "DOCKER_BUILDKIT=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("the pause image: %w\n%s", err, out)
	}
	list := []string{pauseImage, injectorImage + ":latest", appImage, demoImage + ":latest"}
	archive := c.path("images.tar")
	if err := errors.Join(c.do("docker", "tag", image, injectorImage+":latest"), c.do("docker", "tag", busybox, appImage),
		c.do("docker", append([]string{"save", "-o", archive}, list...)...)); err != nil {
		return err
	}
	if out, err := c.ctr("images", "import", archive).CombinedOutput(); err != nil {
		return fmt.Errorf("import images: %w\n%s", err, out)
	}
	return os.Remove(archive)
}

func (c *cluster) startControl() error {
	kubeconfig := "--kubeconfig=" + c.path("kubeconfig")
	if err := c.run("etcd", clusterBinary, "etcd", c.path("etcd"), etcdURL, etcdPeerURL); err != nil {
		return err
	}
	if err := within(30*time.Second, "etcd", func() error {
		conn, err := net.Dial("tcp", strings.TrimPrefix(etcdURL, "http://"))
		if err == nil {
			_ = conn.Close()
		}
		return err
	}); err != nil {
		return err
	}
	key := c.path("accounts.key")
	err := c.run(
		"kube-apiserver",
		clusterBinary,
		"kube-apiserver",
		"--etcd-servers="+etcdURL,
		"--bind-address=127.0.0.1",
		"--secure-port="+apiPort,
		"--advertise-address="+gateway,
		"--cert-dir="+c.path("certificates"),
		"--service-account-issuer=https://cluster",
		"--service-account-key-file="+key,
		"--service-account-signing-key-file="+key,
		"--service-cluster-ip-range=10.98.0.0/24",
		"--token-auth-file="+c.path("tokens"),
		"--authorization-mode=RBAC",
		"--kubelet-preferred-address-types=InternalIP",
		"--endpoint-reconciler-type=none",
		"--feature-gates=MutatingAdmissionPolicy=true",
		"--runtime-config=admissionregistration.k8s.io/v1beta1=true",
	)
	if err != nil {
		return err
	}
	if err := within(90*time.Second, "the API server", func() error {
		_, err := c.kubectl("get", "--raw",
			"/readyz")
		return err
	}); err != nil {
		return err
	}
	return errors.Join(
		c.run("kube-controller-manager", clusterBinary, "kube-controller-manager", kubeconfig, "--service-account-private-key-file="+key,
			"--leader-elect=false", "--secure-port=0"),
		c.run("kube-scheduler", clusterBinary, "kube-scheduler", kubeconfig, "--leader-elect=false", "--secure-port=0"),
	)
}

func (c *cluster) startNode() error {
	err := c.run("kubelet", clusterBinary, "kubelet", "--kubeconfig="+c.path("kubeconfig"), "--config="+c.path("kubelet.yaml"),
		"--hostname-override=node", "--node-ip="+gateway, "--root-dir="+c.path("kubelet"), "--cert-dir="+c.path("certificates"))
	if err != nil {
		return err
	}
	return within(60*time.Second, "the node", func() error {
		out, err := c.kubectl("get", "node", "node", "-o", "jsonpath={.status.conditions[?(@.type=='Ready')].status}")
		if err == nil && out != "True" {
			err = errors.New("not ready")
		}
		return err
	})
}

// kubectl returns what it prints.
func (c *cluster) kubectl(args ...string) (string, error) {
	path, err := kubectlBuilt()
	if err != nil {
		return "", err
	}
	cmd := exec.Command(path, append([]string{"--kubeconfig", c.path("kubeconfig")}, args...)...)
	out, err := cmd.Output()
	if e, ok := errors.AsType[*exec.ExitError](err); ok {
		err = fmt.Errorf("kubectl %q: %w\n%s", args, err, e.Stderr)
	}
	return strings.TrimSpace(string(out)), err
}

// stop ends all parts, the last first, and leaves nothing behind: no containers, mounts or network.
func (c *cluster) stop() error {
	_, err := c.kubectl("delete", "deployments,statefulsets,jobs,pods", "--all", "--all-namespaces", "--grace-period=1", "--timeout=30s")
	for _, cmd := range slices.Backward(c.parts) {
		if strings.HasSuffix(cmd.Path, "containerd") {
			c.endContainers()
		}
		_ = cmd.Process.Signal(syscall.SIGTERM)
		ended, cancel := context.WithCancel(context.Background())
		go func() { _ = cmd.Wait(); cancel() }()
		select {
		case <-ended.Done():
		case <-time.After(10 * time.Second):
			_ = cmd.Process.Kill()
			<-ended.Done()
		}
	}
	c.unmount()
	c.removeNetwork()
	return err
}

// endContainers ends what pods have left, their sandboxes at least.
func (c *cluster) endContainers() {
	out, _ := c.ctr("tasks", "ls", "-q").Output()
	for _, id := range strings.Fields(string(out)) {
		_ = c.ctr("tasks", "rm", "-f", id).Run()
	}
}

func (c *cluster) unmount() {
	raw, _ := os.ReadFile("/proc/self/mounts")
	var points []string
	for line := range strings.Lines(string(raw)) {
		if fields := strings.Fields(line); len(fields) > 1 && strings.HasPrefix(fields[1], c.dir+"/") {
			points = append(points, fields[1])
		}
	}
	slices.Sort(points)
	for _, point := range slices.Backward(points) {
		_ = syscall.Unmount(point, syscall.MNT_DETACH)
	}
}

// tail is the end of each part's output, for a test that failed.
func (c *cluster) tail(part string) string {
	raw, _ := os.ReadFile(c.path(part + ".log"))
	return string(raw[max(0, len(raw)-3000):])
}

// within tries until it works.
func within(limit time.Duration, what string, try func() error) error {
	var err error
	for end := time.Now().Add(limit); time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
		if err = try(); err == nil {
			return nil
		}
	}
	return fmt.Errorf("%s does not come up within %v: %w", what, limit, err)
}
