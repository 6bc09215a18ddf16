package probe

import (
	"fmt"
	"io"
	"math"
	"strings"
	"time"

	"github.com/VictoriaMetrics/metrics"

	"github.com/balena-injector/injector/internal/words"
)

// Metric is a metric as docs/metrics.md describes it.
type Metric struct {
	Name   string
	Type   string   // gauge or counter
	Labels []string // in this order; "key" comes first where there are several keys
	Help   string
}

// Metrics lists all of them, in the order in which they are written.
func Metrics() []Metric {
	var list []Metric
	for _, f := range families() {
		list = append(list, f.Metric)
	}
	return list
}

// sample is a value and the labels' values. A value of NaN is not written.
type sample struct {
	value  float64
	labels []string
}

// family is a metric and where its samples come from: of each key, of the process, or from the counts of requests.
type family struct {
	Metric
	ofKey     func(KeyReport) []sample
	ofProcess func(Report) []sample
	counted   func(*Requests) *metrics.Set
}

// families are what apps' operators watch first, then the counts, then the process. A new one needs a line in an alert or
// on the dashboard, or nobody will look at it.
func families() []family {
	return append(append(stateFamilies(), countFamilies()...), processFamilies()...)
}

func gauge(name, help string, value func(KeyReport) float64) family {
	return family{Metric: Metric{Name: name, Type: "gauge", Help: help}, ofKey: func(k KeyReport) []sample { return one(value(k)) }}
}

func counter(name, help string, value func(KeyReport) int64) family {
	return family{
		Metric: Metric{Name: name, Type: "counter", Help: help},
		ofKey:  func(k KeyReport) []sample { return one(float64(value(k))) },
	}
}

func one(value float64, labels ...string) []sample { return []sample{{value, labels}} }

// WriteMetrics writes a report and the requests in Prometheus' text format. With several keys each
// value has a label "key" with the name.
func WriteMetrics(w io.Writer, r Report, requests *Requests) {
	for _, f := range families() {
		_, _ = fmt.Fprintf(w, "# HELP %s %s\n# TYPE %s %s\n", f.Name, f.Help, f.Name, f.Type)
		switch {
		case f.counted != nil:
			f.counted(requests).WritePrometheus(w)
		case f.ofProcess != nil:
			f.write(w, "", f.ofProcess(r))
		default:
			for _, k := range r.Keys {
				f.write(w, k.Name, f.ofKey(k))
			}
		}
	}
}

func (f family) write(w io.Writer, key string, samples []sample) {
	for _, s := range samples {
		if math.IsNaN(s.value) {
			continue
		}
		var labels []string
		if key != "" {
			labels = append(labels, fmt.Sprintf("key=%q", key))
		}
		for i, value := range s.labels {
			labels = append(labels, fmt.Sprintf("%s=%q", f.Labels[i], value))
		}
		name := f.Name
		if len(labels) > 0 {
			name += "{" + strings.Join(labels, ",") + "}"
		}
		metrics.WriteGaugeFloat64(w, name, s.value) // writes "name value", whatever the type
	}
}

func truth(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

// unix is a time in seconds; NaN for the zero time.
func unix(t time.Time) float64 {
	if t.IsZero() {
		return math.NaN()
	}
	return float64(t.UnixMilli()) / 1000
}

// seconds is NaN for zero, which means "none" of what it is used for.
func seconds(s words.Seconds) float64 {
	if s == 0 {
		return math.NaN()
	}
	return time.Duration(s).Seconds()
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
