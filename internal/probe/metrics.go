package probe

import (
	"fmt"
	"io"
	"math"
	"time"

	"github.com/VictoriaMetrics/metrics"
)

// Requests counts what was sent to the API. Its zero value is not usable: make it with
// NewRequests.
type Requests struct{ count, seconds *metrics.Set }

// NewRequests returns a counter of zero.
func NewRequests() *Requests { return &Requests{metrics.NewSet(), metrics.NewSet()} }

// Observe counts one request of that kind and class.
func (r *Requests) Observe(kind, class string, took time.Duration) {
	r.count.GetOrCreateCounter(fmt.Sprintf("injector_requests_total{kind=%q,class=%q}", kind, class)).Inc()
	r.seconds.GetOrCreateFloatCounter(fmt.Sprintf("injector_request_seconds_total{kind=%q}", kind)).Add(took.Seconds())
}

// family is a metric and what a key's value of it is; NaN for a key that has none, of which nothing is written.
type family struct {
	name, kind, help string
	value            func(KeyReport) float64
}

var families = []family{
	{"injector_ready", "gauge", "1 if an app can rely on the outputs.", func(r KeyReport) float64 { return truth(r.Ready) }},
	{"injector_generation", "gauge", "How often another key was published, over restarts.",
		func(r KeyReport) float64 { return float64(r.Generation) }},
	{
		"injector_live_keys",
		"gauge",
		"Keys of this injector that may be live at balena.",
		func(r KeyReport) float64 { return float64(r.Live) },
	},
	{"injector_stranded_keys", "gauge", "Keys of another account or API that this credential cannot revoke.",
		func(r KeyReport) float64 { return float64(len(r.Stranded)) }},
	{"injector_key_expiry_timestamp_seconds", "gauge",
		"When the published key expires; absent without one, and for one that balena refuses.", expiry},
	{"injector_session_expiry_timestamp_seconds", "gauge", "When the session ends; absent without one.",
		func(r KeyReport) float64 { return unix(r.SessionExpiry) }},
	{"injector_credential_usable", "gauge", "0 if the credential was refused, or could not be read, when it was used or read last.",
		func(r KeyReport) float64 { return truth(r.Credential == nil) }},
	{"injector_rotation_overdue", "gauge", "1 while a key is older than MAX_TTL allows, because no new one can be minted.",
		func(r KeyReport) float64 { return truth(overdue(r)) }},
	{
		"injector_failing_steps",
		"gauge",
		"Steps that failed at their last try.",
		func(r KeyReport) float64 { return float64(len(r.Trouble)) },
	},
	{"injector_failing_notifications", "gauge", "Notifications that failed at their last try.",
		func(r KeyReport) float64 { return float64(len(r.Untold)) }},
	{"injector_mints_total", "counter", "Keys minted.", func(r KeyReport) float64 { return float64(r.Counts.Mints) }},
	{"injector_extensions_total", "counter", "Expiries moved.", func(r KeyReport) float64 { return float64(r.Counts.Extensions) }},
	{"injector_rotations_total", "counter", "Keys replaced.", func(r KeyReport) float64 { return float64(r.Counts.Rotations) }},
	{"injector_revocations_total", "counter", "Keys revoked.", func(r KeyReport) float64 { return float64(r.Counts.Revocations) }},
	{"injector_unrevoked_keys_total", "counter",
		"Keys that could have been revoked and were left to expire, by this start and those before it.",
		func(r KeyReport) float64 { return float64(r.Counts.Unrevoked) }},
}

// WriteMetrics writes a report and the requests in Prometheus' text format. With several keys each
// value has a label "key" with the name.
func WriteMetrics(w io.Writer, r Report, requests *Requests) {
	head := func(name, kind, help string) {
		_, _ = fmt.Fprintf(w, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, kind)
	}
	for _, f := range families {
		head(f.name, f.kind, f.help)
		for _, k := range r.Keys {
			value, name := f.value(k), f.name
			if math.IsNaN(value) {
				continue
			}
			if k.Name != "" {
				name = fmt.Sprintf("%s{key=%q}", f.name, k.Name)
			}
			metrics.WriteGaugeFloat64(w, name, value) // writes "name value", whatever the type
		}
	}
	head("injector_clock_skew_seconds", "gauge", "How far the local clock is ahead of the server's.")
	metrics.WriteGaugeFloat64(w, "injector_clock_skew_seconds", time.Duration(r.Ahead).Seconds())
	head("injector_start_time_seconds", "gauge", "When this process started.")
	metrics.WriteGaugeFloat64(w, "injector_start_time_seconds", unix(r.Started))
	head("injector_requests_total", "counter", "Requests to the API by kind and class of outcome.")
	requests.count.WritePrometheus(w)
	head("injector_request_seconds_total", "counter", "Time spent in requests to the API.")
	requests.seconds.WritePrometheus(w)
	head("injector_info", "gauge", "Version and command.")
	_, _ = fmt.Fprintf(w, "injector_info{version=%q,command=%q} 1\n", r.Version, r.Command)
}

func truth(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

func unix(t time.Time) float64 {
	if t.IsZero() {
		return math.NaN()
	}
	return float64(t.UnixMilli()) / 1000
}

func expiry(r KeyReport) float64 {
	if r.Key == nil || r.Key.Dead {
		return math.NaN()
	}
	return unix(r.Key.Expiry)
}

func overdue(r KeyReport) bool {
	return r.Key != nil && r.MaxTTL > 0 && !r.Key.Dead && r.Key.Expiry.Sub(r.Key.Created) > time.Duration(r.MaxTTL)+time.Minute
}
