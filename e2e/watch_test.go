package e2e

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"
)

// watching makes sure of Prometheus and promtool.
func watching(t *testing.T) {
	t.Helper()
	for _, name := range []string{"prometheus", "promtool"} {
		if _, err := exec.LookPath(name); err != nil {
			if os.Getenv("CI_HAS_ALL") != "" {
				t.Fatal(err)
			}
			t.Skipf("LEFT OUT: what watches the injector; there is no %s", name)
		}
	}
}

// promtool must be content, and says so.
func promtool(t *testing.T, stdin io.Reader, args ...string) {
	t.Helper()
	cmd := exec.Command("promtool", args...)
	cmd.Dir, cmd.Stdin = "../examples/prometheus", stdin
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Errorf("promtool %q: %v\n%s", args, err, out)
	}
	t.Logf("promtool %s\n%s", strings.Join(args, " "), out)
}

func TestAlertRules(t *testing.T) {
	watching(t)
	promtool(t, nil, "check", "config", "prometheus.yaml")
	promtool(t, nil, "check", "rules", "--lint-fatal", "alerts.yaml")
	promtool(t, nil, "test", "rules", "alerts_test.yaml")
	page, err := os.ReadFile("../docs/watching.md")
	if err != nil {
		t.Fatal(err)
	}
	for name := range alertNames(t) {
		if !bytes.Contains(page, []byte("\n| "+name+" |")) {
			t.Errorf("%s is not in docs/watching.md", name)
		}
		raw, err := os.ReadFile("../examples/prometheus/alerts_test.yaml")
		if err != nil || !bytes.Contains(raw, []byte(`alertname="`+name+`"`)) {
			t.Errorf("%s has no test (%v)", name, err)
		}
	}
}

func alertNames(t *testing.T) map[string]bool {
	t.Helper()
	raw, err := os.ReadFile("../examples/prometheus/alerts.yaml")
	if err != nil {
		t.Fatal(err)
	}
	names := map[string]bool{}
	for _, m := range regexp.MustCompile(`alert: (\w+)`).FindAllStringSubmatch(string(raw), -1) {
		names[m[1]] = true
	}
	return names
}

// TestPrometheusWatchesTheDemo has a real Prometheus watch the demo's life and its accidents, in which a second stands for
// a minute of the rules. The right alerts fire, none in the calm part, and each query of the dashboard has an answer.
func TestPrometheusWatchesTheDemo(t *testing.T) {
	t.Parallel()
	watching(t)
	address, second := neighbours(t)
	p := startPrometheus(t, address, second)
	life := startDemo(t, address)
	for _, a := range []string{address, second} { // the second is that of exec, which runs during the accidents
		text := life.fetch("http://" + a + "/metrics")
		promtool(t, strings.NewReader(text), "check", "metrics")
	}
	life.wait()
	time.Sleep(8 * time.Second) // for the alert that nothing answers
	ended := time.Now()

	t.Log(life.out.String())
	fired := p.fired(life.began, ended, ".*")
	for _, name := range []string{"BalenaTokenNotReady", "BalenaTokenExpires", "BalenaTokenStepFails", "BalenaTokenNotWritten",
		"BalenaCredentialUnusable", "BalenaSilent", "BalenaTokenNotificationFails", "BalenaTokenKeysLeft", "BalenaTokenInjectorDown"} {
		at, did := fired[name]
		if !did {
			t.Errorf("%s did not fire", name)
			continue
		}
		t.Logf("%-30s fired in minute %.0f", name, at.Seconds())
	}
	calm := life.accidents()
	for name, at := range p.fired(life.began, life.began.Add(calm), address) { // exec does not run yet
		if at < calm {
			t.Errorf("%s fired in minute %.0f, before the accidents, which begin in minute %.0f", name, at.Seconds(), calm.Seconds())
		}
	}
	p.answersDashboard(life.began, ended)
	p.hasAllMetrics(life.began, ended)
}

// neighbours are two free addresses, one port above the other.
func neighbours(t *testing.T) (first, second string) {
	t.Helper()
	for range 50 {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		port := l.Addr().(*net.TCPAddr).Port
		next, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port+1))
		_ = l.Close()
		if err == nil {
			_ = next.Close()
			return fmt.Sprintf("127.0.0.1:%d", port), fmt.Sprintf("127.0.0.1:%d", port+1)
		}
	}
	t.Fatal("no free ports")
	return "", ""
}

// prometheus is one that runs for a test.
type prometheus struct {
	t   *testing.T
	url string
}

// Each minute of the rules is a second.
var (
	minutesInRules = regexp.MustCompile(`(for: \d+)m\b`)
	hourInRules    = regexp.MustCompile(`\[1h\]`)
	timesSixty     = regexp.MustCompile(`(\d+) \* 60\b`)
)

func hastened(rules string) string {
	rules = minutesInRules.ReplaceAllString(rules, "${1}s")
	rules = hourInRules.ReplaceAllString(rules, "[60s]")
	return timesSixty.ReplaceAllString(rules, "$1")
}

// startPrometheus scrapes those addresses, with the configuration and the rules of the examples, in haste.
func startPrometheus(t *testing.T, targets ...string) *prometheus {
	t.Helper()
	rules, err := os.ReadFile("../examples/prometheus/alerts.yaml")
	if err != nil {
		t.Fatal(err)
	}
	config, err := os.ReadFile("../examples/prometheus/prometheus.yaml")
	if err != nil {
		t.Fatal(err)
	}
	text := strings.ReplaceAll(string(config), "_interval: 30s", "_interval: 250ms")
	text = strings.ReplaceAll(text, `"injector:22536"`, `"`+strings.Join(targets, `", "`)+`"`)
	text = strings.Replace(text, "global:\n", "global:\n  scrape_timeout: 250ms\n", 1)
	dir := t.TempDir()
	for name, content := range map[string]string{"prometheus.yaml": text, "alerts.yaml": hastened(string(rules))} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	address, _ := neighbours(t)
	cmd := exec.Command("prometheus", "--config.file="+filepath.Join(dir, "prometheus.yaml"),
		"--storage.tsdb.path="+filepath.Join(dir, "data"), "--web.listen-address="+address, "--log.level=warn")
	log := &bytes.Buffer{}
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		_ = cmd.Wait()
		if t.Failed() {
			t.Log(log.String())
		}
	})
	p := &prometheus{t, "http://" + address}
	for end := time.Now().Add(time.Minute); ; time.Sleep(100 * time.Millisecond) {
		if answer, err := http.Get(p.url + "/-/ready"); err == nil {
			_ = answer.Body.Close()
			if answer.StatusCode == http.StatusOK {
				return p
			}
		}
		if time.Now().After(end) {
			t.Fatalf("Prometheus does not answer:\n%s", log.String())
		}
	}
}

// series is one answer to a query over a time.
type series struct {
	Metric map[string]string
	Values [][2]any // time in seconds, value as text
}

func (p *prometheus) query(expr string, from, to time.Time) []series {
	p.t.Helper()
	q := url.Values{"query": {expr}, "start": {from.Format(time.RFC3339Nano)}, "end": {to.Format(time.RFC3339Nano)}, "step": {"0.5"}}
	var got struct {
		Status, Error string
		Data          struct{ Result []series }
	}
	answer, err := http.Get(p.url + "/api/v1/query_range?" + q.Encode())
	if err != nil {
		p.t.Fatal(err)
	}
	defer func() { _ = answer.Body.Close() }()
	if err := json.NewDecoder(answer.Body).Decode(&got); err != nil || got.Status != "success" {
		p.t.Errorf("%s: %v %s", expr, err, got.Error)
	}
	return got.Data.Result
}

// fired is which alerts fired for those instances, and when first, counted from a time.
func (p *prometheus) fired(from, to time.Time, instances string) map[string]time.Duration {
	p.t.Helper()
	first := map[string]time.Duration{}
	for _, s := range p.query(`ALERTS{alertstate="firing", instance=~"`+instances+`"}`, from, to) {
		name := s.Metric["alertname"]
		at := time.Duration(s.Values[0][0].(float64)*float64(time.Second)) - time.Duration(from.UnixNano())
		if known, there := first[name]; !there || at < known {
			first[name] = at
		}
	}
	return first
}

// answersDashboard asks all that the dashboard asks.
func (p *prometheus) answersDashboard(from, to time.Time) {
	p.t.Helper()
	raw, err := os.ReadFile("../examples/grafana/dashboard.json")
	if err != nil {
		p.t.Fatal(err)
	}
	var board struct {
		Panels []struct {
			Title   string
			Targets []struct{ Expr string }
		}
	}
	if err := json.Unmarshal(raw, &board); err != nil {
		p.t.Fatal(err)
	}
	fill := strings.NewReplacer("$job", "balena-token-injector", "$instance", ".*", "$__rate_interval", "10s")
	asked := 0
	for _, panel := range board.Panels {
		for _, target := range panel.Targets {
			asked++
			if len(p.query(fill.Replace(target.Expr), from, to)) == 0 {
				p.t.Errorf("panel %q: nothing answers %s", panel.Title, target.Expr)
			}
		}
	}
	p.t.Logf("%d queries of %d panels were answered", asked, len(board.Panels))
	if asked < 20 {
		p.t.Errorf("only %d queries", asked)
	}
}

// hasAllMetrics looks for each metric that docs/metrics.md has.
func (p *prometheus) hasAllMetrics(from, to time.Time) {
	p.t.Helper()
	page, err := os.ReadFile("../docs/metrics.md")
	if err != nil {
		p.t.Fatal(err)
	}
	names := regexp.MustCompile("(?m)^\\| `(injector_\\w+)`").FindAllStringSubmatch(string(page), -1)
	if len(names) < 20 {
		p.t.Errorf("docs/metrics.md has %d metrics", len(names))
	}
	for _, m := range names {
		if len(p.query(m[1], from, to)) == 0 {
			p.t.Errorf("%s was never scraped", m[1])
		}
	}
}

// demoLife is a demo that runs, with its accidents.
type demoLife struct {
	t     *testing.T
	began time.Time
	out   *bytes.Buffer
	ended chan struct{}
	err   error // once it ended
}

func startDemo(t *testing.T, listen string) *demoLife {
	t.Helper()
	binary := filepath.Join(t.TempDir(), "demo")
	build := exec.Command("go", "build", "-o", binary, "./examples/demo")
	build.Dir = ".."
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatal(err, string(out))
	}
	d := &demoLife{t: t, began: time.Now(), out: &bytes.Buffer{}, ended: make(chan struct{})}
	cmd := exec.Command(binary, "-listen", listen, "-accidents")
	cmd.Dir, cmd.Stdout, cmd.Stderr = "..", d.out, d.out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { d.err = cmd.Wait(); close(d.ended) }()
	t.Cleanup(func() { _ = cmd.Process.Signal(syscall.SIGTERM); <-d.ended })
	return d
}

func (d *demoLife) wait() {
	d.t.Helper()
	select {
	case <-d.ended:
		if d.err != nil {
			d.t.Errorf("the demo: %v\n%s", d.err, d.out.String())
		}
	case <-time.After(5 * time.Minute):
		d.t.Fatal("the demo does not end")
	}
}

// fetch waits for somebody to answer there: how long the demo needs to begin depends on what else the machine does.
func (d *demoLife) fetch(address string) string {
	d.t.Helper()
	for {
		answer, err := http.Get(address)
		if err == nil {
			text, err := io.ReadAll(answer.Body)
			_ = answer.Body.Close()
			if err == nil && answer.StatusCode == http.StatusOK {
				return string(text)
			}
		}
		select {
		case <-d.ended:
			d.t.Fatalf("the demo ended, and nobody had answered at %s: %v\n%s", address, err, d.out.String())
		case <-time.After(100 * time.Millisecond):
		}
	}
}

var accidentsBegin = regexp.MustCompile(`(?m)^ *([\d.]+) s  demo +accidents begin`)

// accidents is when they began.
func (d *demoLife) accidents() time.Duration {
	d.t.Helper()
	m := accidentsBegin.FindStringSubmatch(d.out.String())
	if m == nil {
		d.t.Fatalf("there were no accidents:\n%s", d.out.String())
	}
	at, err := time.ParseDuration(m[1] + "s")
	if err != nil {
		d.t.Fatal(err)
	}
	return at
}

// TestPodMonitor names the sidecar's port, and the job that the alerts ask for. Prometheus' operator itself is not tried.
func TestPodMonitor(t *testing.T) {
	raw, err := os.ReadFile(k8sDir + "podmonitor/podmonitor.yaml")
	if err != nil {
		t.Fatal(err)
	}
	port := regexp.MustCompile(`- port: (\w+)\n`).FindSubmatch(raw)
	if port == nil || !bytes.Contains(raw, []byte("{targetLabel: job, replacement: balena-token-injector}")) {
		t.Fatalf("the PodMonitor names no port, or not the alerts' job:\n%s", raw)
	}
	for home := range homes {
		injectors := 0
		for _, c := range append(pods(t, home)[0].Spec.InitContainers, pods(t, home)[0].Spec.Containers...) {
			for _, p := range c.Ports {
				if p.Name == string(port[1]) {
					injectors++
				}
			}
		}
		if injectors == 0 {
			t.Errorf("%s: no port is called %s", home, port[1])
		}
	}
}
