package words

import (
	"encoding/json"
	"math"
	"testing"
	"time"
)

// TestHumanHasTwoUnitsAtMost writes durations of all sizes, and those on both sides of each step.
func TestHumanHasTwoUnitsAtMost(t *testing.T) {
	const day = 24 * time.Hour
	for d, want := range map[time.Duration]string{
		-time.Hour:                        "a moment",
		0:                                 "a moment",
		time.Second - 1:                   "a moment",
		time.Second:                       "1 s",
		time.Minute - 1:                   "59 s",
		time.Minute:                       "1 min 0 s",
		9*time.Minute + 50*time.Second:    "9 min 50 s",
		time.Hour - 1:                     "59 min 59 s",
		time.Hour:                         "1 h 0 min",
		25*time.Hour + 5*time.Minute + 59: "25 h 5 min",
		2*day - 1:                         "47 h 59 min",
		2 * day:                           "2 days 0 h",
		2*day + 3*time.Hour + time.Minute: "2 days 3 h",
		365 * day:                         "365 days 0 h",
	} {
		if got := Human(d); got != want {
			t.Errorf("%v is written as %q, not %q", d, got, want)
		}
	}
}

// TestInSaysNowForThePast and for less than a second.
func TestInSaysNowForThePast(t *testing.T) {
	for d, want := range map[time.Duration]string{
		-time.Hour:                     "now",
		0:                              "now",
		time.Second - 1:                "now",
		time.Second:                    "in 1 s",
		9*time.Minute + 50*time.Second: "in 9 min 50 s",
	} {
		if got := In(d); got != want {
			t.Errorf("%v is said as %q, not %q", d, got, want)
		}
	}
}

// TestShortLeavesZeroPartsOut at the end of a duration, and no other part.
func TestShortLeavesZeroPartsOut(t *testing.T) {
	for d, want := range map[time.Duration]string{
		0:                            "0s",
		time.Hour:                    "1h",
		10 * time.Hour:               "10h",
		-time.Hour:                   "-1h",
		90 * time.Second:             "1m30s",
		20 * time.Minute:             "20m",
		90 * time.Minute:             "1h30m",
		time.Hour + 5*time.Second:    "1h0m5s",
		10 * time.Second:             "10s",
		100 * time.Millisecond:       "100ms",
		time.Hour + time.Millisecond: "1h0m0.001s",
		10*time.Minute + time.Second: "10m1s",
	} {
		if got := Short(d); got != want {
			t.Errorf("%v is written as %q, not %q", d, got, want)
		}
	}
}

// TestDurationIsReadAsItWasWritten takes durations through JSON, where they look as they do in logs.
func TestDurationIsReadAsItWasWritten(t *testing.T) {
	type report struct {
		Left Duration `json:"left,omitzero"`
	}
	for _, d := range []time.Duration{time.Hour, 90 * time.Second, -3 * time.Minute, 1, math.MaxInt64, math.MinInt64} {
		raw, err := json.Marshal(report{Duration(d)})
		if err != nil {
			t.Fatal(err)
		}
		if want := `{"left":"` + Short(d) + `"}`; string(raw) != want {
			t.Errorf("%v is written as %s, not %s", d, raw, want)
		}
		var back report
		if err := json.Unmarshal(raw, &back); err != nil || time.Duration(back.Left) != d {
			t.Errorf("%s is read as %v: %v", raw, time.Duration(back.Left), err)
		}
	}
	for _, text := range []string{`{"left":"soon"}`, `{"left":""}`, `{"left":5}`} {
		if err := json.Unmarshal([]byte(text), new(report)); err == nil {
			t.Errorf("%s is read", text)
		}
	}
}
