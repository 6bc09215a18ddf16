package probe

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"time"

	"github.com/VictoriaMetrics/metrics"
)

// stateFamilies say how things are.
func stateFamilies() []family {
	return []family{
		gauge("injector_ready", "1 if an app can rely on the outputs, 0 if not.", func(k KeyReport) float64 { return truth(k.Ready) }),
		gauge("injector_key_expiry_timestamp_seconds",
			"When the published key expires, by balena's clock; absent without one, and for one that balena refuses.", expiry),
		gauge("injector_key_ttl_seconds", "How far ahead an extension sets the expiry (INJECTOR_TTL).",
			func(k KeyReport) float64 { return seconds(k.TTL) }),
		gauge("injector_check_interval_seconds", "How often balena is asked whether the key lives (INJECTOR_CHECK_INTERVAL).",
			func(k KeyReport) float64 { return seconds(k.Check) }),
		gauge("injector_last_success_timestamp_seconds",
			"When balena last did what was asked, or said that the key lives; absent until then.",
			func(k KeyReport) float64 { return unix(k.LastSuccess) }),
		{Metric: Metric{"injector_failing_since_timestamp_seconds", "gauge", []string{"step", "class"},
			"Since when a step fails, and why; absent for a step that does not fail."}, ofKey: failing},
		gauge("injector_failing_steps", "Steps that failed at their last try.",
			func(k KeyReport) float64 { return float64(len(k.Trouble)) }),
		gauge("injector_credential_usable",
			"0 if the credential was refused, or could not be read, when it was used or read last; else 1.",
			func(k KeyReport) float64 { return truth(k.Credential == nil) }),
		gauge("injector_session_expiry_timestamp_seconds", "When the session ends, by balena's clock; absent without one.",
			func(k KeyReport) float64 { return unix(k.SessionExpiry) }),
		gauge("injector_rotation_overdue", "1 while a key is older than INJECTOR_MAX_TTL allows, because no new one can be minted; else 0.",
			func(k KeyReport) float64 { return truth(overdue(k)) }),
		gauge("injector_live_keys", "Keys of this injector that may be live at balena: 1, and 2 while one replaces the other.",
			func(k KeyReport) float64 { return float64(k.Live) }),
		gauge("injector_stranded_keys", "Keys of another account or API that this credential cannot revoke, and that have not expired yet.",
			func(k KeyReport) float64 { return float64(len(k.Stranded)) }),
		gauge("injector_generation", "How often a key was published, over restarts, as in the .json beside the output.",
			func(k KeyReport) float64 { return float64(k.Generation) }),
		gauge("injector_failing_notifications", "Notifications that failed at their last try.",
			func(k KeyReport) float64 { return float64(len(k.Untold)) }),
	}
}

// countFamilies say what was done. They begin at 0 with each start, unless they say otherwise.
func countFamilies() []family {
	return []family{
		counter("injector_mints_total", "Keys minted.", func(k KeyReport) int64 { return k.Counts.Mints }),
		counter("injector_extensions_total", "Expiries moved.", func(k KeyReport) int64 { return k.Counts.Extensions }),
		counter("injector_rotations_total", "Keys replaced.", func(k KeyReport) int64 { return k.Counts.Rotations }),
		counter("injector_revocations_total", "Keys revoked.", func(k KeyReport) int64 { return k.Counts.Revocations }),
		counter("injector_unrevoked_keys_total",
			"Keys that could have been revoked and were left to expire, by this start and those before it.",
			func(k KeyReport) int64 { return k.Counts.Unrevoked }),
		{Metric: Metric{"injector_step_failures_total", "counter", []string{"step"},
			"Tries of a step that failed; absent for a step that never did. A template that cannot be rendered is among them, as " +
				"step \"publish the key\" or \"write the outputs again\"."}, ofKey: failures},
		{Metric: Metric{"injector_notifications_total", "counter", nil, "Notifications that arrived; absent if nobody is to be notified."},
			ofKey: func(k KeyReport) []sample { return told(k, func(t Told) int64 { return t.Succeeded }) }},
		{Metric: Metric{"injector_notification_failures_total", "counter", nil,
			"Tries to notify that failed; absent if nobody is to be notified."},
			ofKey: func(k KeyReport) []sample { return told(k, func(t Told) int64 { return t.Failed }) }},
	}
}

// processFamilies are about the process, whatever keys it has.
func processFamilies() []family {
	return []family{
		{Metric: Metric{"injector_exec_restarts_total", "counter", nil,
			"How often exec started its command again for another key; absent for other commands."}, ofProcess: restarts},
		{Metric: Metric{"injector_clock_skew_seconds", "gauge", nil, "How far the local clock is ahead of balena's."},
			ofProcess: func(r Report) []sample { return one(time.Duration(r.Ahead).Seconds()) }},
		{Metric: Metric{"injector_start_time_seconds", "gauge", nil, "When this process started."},
			ofProcess: func(r Report) []sample { return one(unix(r.Started)) }},
		{Metric: Metric{"injector_requests_total", "counter", []string{"kind", "class"},
			"Requests to the API by kind and class of outcome."},
			counted: func(r *Requests) *metrics.Set { return r.count }},
		{Metric: Metric{"injector_request_seconds_total", "counter", []string{"kind"}, "Time spent in requests to the API."},
			counted: func(r *Requests) *metrics.Set { return r.seconds }},
		{Metric: Metric{"injector_build_info", "gauge", []string{"version", "revision", "goversion"},
			"1, with what the binary was built from."},
			ofProcess: func(r Report) []sample { return one(1, r.Version, r.Revision, r.GoVersion) }},
		{Metric: Metric{"injector_info", "gauge", []string{"command", "api"}, "1, with what it does, and the API's URL."},
			ofProcess: func(r Report) []sample { return one(1, r.Command, r.API) }},
	}
}

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

// failing has one sample a step. Several old keys may wait to be revoked: the step fails since the first of them did.
func failing(k KeyReport) []sample {
	first := map[string]sample{}
	var list []sample
	for _, t := range k.Trouble {
		s := sample{unix(t.Since), []string{t.Step, t.Class}}
		if known, there := first[t.Step]; !there || s.value < known.value {
			first[t.Step] = s
		}
	}
	for _, step := range slices.Sorted(maps.Keys(first)) {
		list = append(list, first[step])
	}
	return list
}

func failures(k KeyReport) []sample {
	var list []sample
	for _, step := range slices.Sorted(maps.Keys(k.Counts.Failures)) {
		list = append(list, sample{float64(k.Counts.Failures[step]), []string{step}})
	}
	return list
}

func told(k KeyReport, count func(Told) int64) []sample {
	if k.Told == nil {
		return nil
	}
	return one(float64(count(*k.Told)))
}

func restarts(r Report) []sample {
	if r.Restarts == nil {
		return one(math.NaN())
	}
	return one(float64(*r.Restarts))
}
