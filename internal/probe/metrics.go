package probe

import (
	"fmt"
	"io"
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

// WriteMetrics writes a report and the requests in Prometheus' text format.
func WriteMetrics(w io.Writer, r Report, requests *Requests) {
	gauge := func(name, help string, value float64) {
		_, _ = fmt.Fprintf(w, "# HELP %s %s\n# TYPE %s gauge\n", name, help, name)
		metrics.WriteGaugeFloat64(w, name, value)
	}
	counter := func(name, help string, value int64) {
		_, _ = fmt.Fprintf(w, "# HELP %s %s\n# TYPE %s counter\n", name, help, name)
		metrics.WriteCounterUint64(w, name, uint64(value))
	}
	gauge("injector_ready", "1 if an app can rely on the outputs.", truth(r.Ready))
	gauge("injector_generation", "How often another key was published, over restarts.", float64(r.Generation))
	gauge("injector_live_keys", "Keys that this agent holds at balena.", float64(live(r)))
	gauge("injector_key_expiry_timestamp_seconds", "When the published key expires; 0 without one.", expiry(r))
	gauge("injector_session_expiry_timestamp_seconds", "When the session ends; 0 without one.", unix(r.SessionExpiry))
	gauge("injector_clock_skew_seconds", "How far the local clock is ahead of the server's.", r.ClockSkew.Seconds())
	gauge("injector_rotation_overdue", "1 while a key is older than MAX_TTL allows, because no new one can be had.", truth(overdue(r)))
	gauge("injector_failing_steps", "Steps that failed at their last try.", float64(len(r.Trouble)))
	counter("injector_mints_total", "Keys minted.", r.Counts.Mints)
	counter("injector_extensions_total", "Expiries moved.", r.Counts.Extensions)
	counter("injector_rotations_total", "Keys replaced.", r.Counts.Rotations)
	counter("injector_revocations_total", "Keys revoked.", r.Counts.Revocations)
	counter("injector_unrevoked_keys_total", "Keys that could have been revoked and were left to expire.", r.Counts.Unrevoked)
	_, _ = io.WriteString(w, "# HELP injector_requests_total Requests to the API by kind and class of outcome.\n# TYPE injector_requests_total counter\n")
	requests.count.WritePrometheus(w)
	_, _ = io.WriteString(w, "# HELP injector_request_seconds_total Time spent in requests to the API.\n# TYPE injector_request_seconds_total counter\n")
	requests.seconds.WritePrometheus(w)
	_, _ = fmt.Fprintf(w, "# HELP injector_info Version and command.\n# TYPE injector_info gauge\ninjector_info{version=%q,command=%q} 1\n", r.Version, r.Command)
}

func truth(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

func unix(t time.Time) float64 {
	if t.IsZero() {
		return 0
	}
	return float64(t.UnixMilli()) / 1000
}

func expiry(r Report) float64 {
	if r.Key == nil {
		return 0
	}
	return unix(r.Key.Expiry)
}

func live(r Report) int {
	n := len(r.Old)
	if r.Key != nil && !r.Key.Dead {
		n++
	}
	if r.Coming != nil {
		n++
	}
	return n
}

func overdue(r Report) bool {
	return r.Key != nil && r.MaxTTL > 0 && r.Key.Expiry.Sub(r.Key.Created) > r.MaxTTL+time.Minute
}
