package words

import (
	"encoding/json"
	"slices"
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

// TestSecondsAreReadAsTheyWereWritten takes durations through JSON, where they are numbers.
func TestSecondsAreReadAsTheyWereWritten(t *testing.T) {
	type report struct {
		Left Seconds `json:"left,omitzero"`
	}
	for d, want := range map[time.Duration]string{
		time.Hour:               `{"left":3600}`,
		90 * time.Second:        `{"left":90}`,
		-3 * time.Minute:        `{"left":-180}`,
		1500 * time.Millisecond: `{"left":1.5}`,
		time.Millisecond:        `{"left":0.001}`,
		365 * 24 * time.Hour:    `{"left":31536000}`,
		0:                       `{}`,
	} {
		raw, err := json.Marshal(report{Seconds(d)})
		if err != nil || string(raw) != want {
			t.Errorf("%v is written as %s, not %s: %v", d, raw, want, err)
		}
		var back report
		if err := json.Unmarshal(raw, &back); err != nil || time.Duration(back.Left) != d {
			t.Errorf("%s is read as %v: %v", raw, time.Duration(back.Left), err)
		}
	}
	for _, text := range []string{`{"left":"soon"}`, `{"left":"5s"}`, `{"left":{}}`} {
		if err := json.Unmarshal([]byte(text), new(report)); err == nil {
			t.Errorf("%s is read", text)
		}
	}
	if got := InSeconds(1234567 * time.Microsecond); got != 1.235 {
		t.Errorf("to the millisecond it is %v", got)
	}
}

// TestWrap breaks lines between words only, by characters and not by bytes.
func TestWrap(t *testing.T) {
	for _, c := range []struct {
		text  string
		width int
		want  []string
	}{
		{"", 5, nil},
		{" \n ", 5, nil},
		{"one two", 7, []string{"one two"}},
		{"one two", 6, []string{"one", "two"}},
		{"one\ntwo  three", 8, []string{"one two", "three"}},
		{"a longer-than-that b", 6, []string{"a", "longer-than-that", "b"}},
		{"CMD … …", 7, []string{"CMD … …"}},
	} {
		if got := Wrap(c.text, c.width); !slices.Equal(got, c.want) {
			t.Errorf("%q at %d is %q, not %q", c.text, c.width, got, c.want)
		}
	}
}
