package probe

import (
	"bytes"
	"flag"
	"fmt"
	"math"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/balena-injector/injector/agent"
	"github.com/balena-injector/injector/internal/words"
)

// samples are the lines of metrics without the comments, by name and labels. It checks that each metric has a help and a
// type before its values, once.
func samples(t *testing.T, text string) map[string]float64 {
	t.Helper()
	values, family := map[string]float64{}, ""
	seen := map[string]bool{}
	for line := range strings.Lines(text) {
		line = strings.TrimSuffix(line, "\n")
		parts := strings.Fields(line)
		switch {
		case strings.HasPrefix(line, "# HELP "):
			if family = parts[2]; seen[family] || len(parts) < 4 {
				t.Errorf("%s is described twice, or not", family)
			}
			seen[family] = true
		case strings.HasPrefix(line, "# TYPE "):
			if parts[2] != family || (parts[3] == "counter") != strings.HasSuffix(family, "_total") {
				t.Errorf("after the help of %s comes %s", family, line)
			}
		default:
			name := parts[0]
			value, err := strconv.ParseFloat(parts[len(parts)-1], 64)
			if err != nil || math.IsNaN(value) {
				t.Errorf("%s is not a number: %v", line, err)
			}
			if i := strings.LastIndex(line, "} "); i >= 0 {
				name = line[:i+1]
			}
			if bare, _, _ := strings.Cut(name, "{"); bare != family {
				t.Errorf("%s is among the values of %s", line, family)
			}
			if _, twice := values[name]; twice {
				t.Errorf("%s has two values", name)
			}
			values[name] = value
		}
	}
	return values
}

// metricsOf returns what is written of a report.
func metricsOf(t *testing.T, r Report, requests *Requests) map[string]float64 {
	t.Helper()
	var out bytes.Buffer
	WriteMetrics(&out, r, requests)
	return samples(t, out.String())
}

func wantValues(t *testing.T, got, want map[string]float64) {
	t.Helper()
	for name, value := range want {
		if is, there := got[name]; !there || is != value {
			t.Errorf("%s is %v, not %v", name, is, value)
		}
	}
}

// TestMetricsOfTheOnlyKey have the report's values, and no label.
func TestMetricsOfTheOnlyKey(t *testing.T) {
	expires := at.Add(time.Hour)
	r := Report{
		State:    Running,
		Version:  `1.2 "x"`,
		Command:  "run",
		API:      "https://api.example.com",
		Started:  at.Add(1500 * time.Millisecond),
		Restarts: new(int64(6)), Revision: "0a1b2c", GoVersion: "go1.26.8",
		Ahead: words.Seconds(-90 * time.Second),
		Keys: []KeyReport{{
			Status: agent.Status{
				Ready:      true,
				Generation: 7,
				Key:        &agent.KeyStatus{Created: at, Expiry: expires},
				Stranded:   make([]agent.KeyStatus, 2),
				Live:       3,
				Trouble: []agent.Trouble{
					{Step: "extend the key", Class: "outage", Since: at.Add(time.Minute)},
					{Step: "revoke an old key", Class: "outage", Since: at.Add(3 * time.Minute)},
					{Step: "revoke an old key", Class: "busy", Since: at.Add(2 * time.Minute)},
				},
				LastSuccess: at.Add(time.Second),
				Counts: agent.Counts{Mints: 11, Extensions: 12, Rotations: 13, Revocations: 14, Unrevoked: 15,
					Failures: map[string]int64{"extend the key": 16, "mint the key": 17}},
			},
			SessionExpiry: expires.Add(time.Minute),
			TTL:           words.Seconds(time.Hour),
			Check:         words.Seconds(5 * time.Minute),
			Told:          &Told{Succeeded: 18, Failed: 19},
			MaxTTL:        words.Seconds(24 * time.Hour),
			Untold:        make([]string, 5),
		}},
	}
	requests := NewRequests()
	for range 3 {
		requests.Observe("mint", "outage", 250*time.Millisecond)
	}
	requests.Observe("mint", "ok", time.Second)
	requests.Observe("check", "ok", time.Millisecond)
	got := metricsOf(t, r, requests)
	seconds := func(t time.Time) float64 { return float64(t.UnixMilli()) / 1000 }
	all := map[string]float64{
		"injector_ready":                            1,
		"injector_generation":                       7,
		"injector_live_keys":                        3,
		"injector_stranded_keys":                    2,
		"injector_key_expiry_timestamp_seconds":     seconds(expires),
		"injector_session_expiry_timestamp_seconds": seconds(expires.Add(time.Minute)),
		"injector_credential_usable":                1,
		"injector_rotation_overdue":                 0,
		"injector_failing_steps":                    3,
		"injector_check_interval_seconds":           300,
		"injector_key_ttl_seconds":                  3600,
		"injector_last_success_timestamp_seconds":   seconds(at.Add(time.Second)),
		"injector_notifications_total":              18,
		"injector_notification_failures_total":      19,
		"injector_exec_restarts_total":              6,
		`injector_failing_since_timestamp_seconds{step="extend the key",class="outage"}`:  seconds(at.Add(time.Minute)),
		`injector_failing_since_timestamp_seconds{step="revoke an old key",class="busy"}`: seconds(at.Add(2 * time.Minute)),
		`injector_step_failures_total{step="extend the key"}`:                             16,
		`injector_step_failures_total{step="mint the key"}`:                               17,
		"injector_failing_notifications":                                                  5,
		"injector_mints_total":                                                            11,
		"injector_extensions_total":                                                       12,
		"injector_rotations_total":                                                        13,
		"injector_revocations_total":                                                      14,
		"injector_unrevoked_keys_total":                                                   15,
		"injector_clock_skew_seconds":                                                     -90,
		"injector_start_time_seconds":                                                     seconds(r.Started),
		`injector_requests_total{kind="mint",class="outage"}`:                             3,
		`injector_requests_total{kind="mint",class="ok"}`:                                 1,
		`injector_requests_total{kind="check",class="ok"}`:                                1,
		`injector_request_seconds_total{kind="mint"}`:                                     1.75,
		`injector_request_seconds_total{kind="check"}`:                                    0.001,
		`injector_build_info{version="1.2 \"x\"",revision="0a1b2c",goversion="go1.26.8"}`: 1,
		`injector_info{command="run",api="https://api.example.com"}`:                      1,
	}
	wantValues(t, got, all)
	for name, value := range got {
		if _, known := all[name]; !known {
			t.Errorf("%s %v is there, and means nothing", name, value)
		}
	}
}

var update = flag.Bool("update", false, "write docs/metrics.md anew")

const metricsFile = "../../docs/metrics.md"

// TestMetricsPage compares the page of all metrics with the code.
func TestMetricsPage(t *testing.T) {
	var want strings.Builder
	want.WriteString(metricsHead)
	for _, m := range Metrics() {
		labels := "–"
		if len(m.Labels) > 0 {
			labels = "`" + strings.Join(m.Labels, "`, `") + "`"
		}
		fmt.Fprintf(&want, "| `%s` | %s | %s | %s |\n", m.Name, m.Type, labels, m.Help)
	}
	if *update {
		if err := os.WriteFile(metricsFile, []byte(want.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(metricsFile)
	if err != nil {
		t.Fatal(err)
	}
	if string(got) != want.String() {
		t.Error("docs/metrics.md does not say what the code does: run this test with -update")
	}
}

const metricsHead = "# Metrics\n\nWith `INJECTOR_LISTEN=:22536` they are at `http://HOST:22536/metrics`, in Prometheus' text format.\n" +
	"[watching.md](watching.md) tells how to scrape them, and has alerts and a dashboard. Times are seconds, points in time\n" +
	"seconds since 1970 by the local clock unless the text says otherwise. Where `INJECTOR_KEYS` names several keys, each value\n" +
	"of a key has one more label, `key`. Counters begin at 0 with each start of the injector, unless the text says otherwise.\n" +
	"Steps have the names that the log and `injector status` give them. No metric has a secret in it. This page is made from\n" +
	"the code.\n\n| metric | type | labels | meaning |\n|---|---|---|---|\n"

// TestMetricsOfSeveralKeys have the key's name for a label.
func TestMetricsOfSeveralKeys(t *testing.T) {
	r := Report{Started: at, Keys: []KeyReport{good("deploy"), bad("fleet", "running", "no key yet")}}
	got := metricsOf(t, r, NewRequests())
	wantValues(t, got, map[string]float64{
		`injector_ready{key="deploy"}`: 1,
		`injector_ready{key="fleet"}`:  0,
	})
	if value, there := got["injector_ready"]; there {
		t.Errorf("injector_ready is %v, of no key", value)
	}
}

// TestNothingIsWrittenOfWhatIsNot there: no expiry without a key, or of one that is refused, and none without a session.
func TestNothingIsWrittenOfWhatIsNot(t *testing.T) {
	const expiry, session = "injector_key_expiry_timestamp_seconds", "injector_session_expiry_timestamp_seconds"
	dead, live := good(""), good("")
	live.Key = &agent.KeyStatus{Expiry: at}
	dead.Key = &agent.KeyStatus{Expiry: at, Dead: true}
	dead.SessionExpiry = at
	for _, c := range []struct {
		k               KeyReport
		expiry, session bool
	}{
		{good(""), false, false},
		{live, true, false},
		{dead, false, true},
	} {
		got := metricsOf(t, Report{Started: at, Keys: []KeyReport{c.k}}, NewRequests())
		_, hasExpiry := got[expiry]
		_, hasSession := got[session]
		if hasExpiry != c.expiry || hasSession != c.session {
			t.Errorf("of %+v: an expiry %v, a session's %v", c.k, hasExpiry, hasSession)
		}
	}
}

// TestRotationIsOverdue while a key is older than it may get, but for what clocks differ.
func TestRotationIsOverdue(t *testing.T) {
	const day = 24 * time.Hour
	for _, c := range []struct {
		lives, most time.Duration
		dead        bool
		want        float64
	}{
		{day, day, false, 0},
		{day + time.Minute, day, false, 0},
		{day + time.Minute + time.Second, day, false, 1},
		{day + time.Hour, day, true, 0}, // another one is on its way
		{1000 * day, 0, false, 0},       // it is never replaced
	} {
		k := good("")
		k.Key = &agent.KeyStatus{Created: at, Expiry: at.Add(c.lives), Dead: c.dead}
		k.MaxTTL = words.Seconds(c.most)
		got := metricsOf(t, Report{Started: at, Keys: []KeyReport{k}}, NewRequests())
		wantValues(t, got, map[string]float64{"injector_rotation_overdue": c.want})
	}
	refused := good("")
	refused.Credential = &Credential{Error: "it was refused"}
	wantValues(t, metricsOf(t, Report{Started: at, Keys: []KeyReport{refused}}, NewRequests()), map[string]float64{
		"injector_credential_usable": 0,
		"injector_rotation_overdue":  0,
	})
}
