// Package words writes times and durations the way people say them.
package words

import (
	"fmt"
	"strings"
	"time"
)

// Human writes a duration with two units at most: "2 days 3 h", "9 min 50 s", "a moment".
func Human(d time.Duration) string {
	if d < time.Second {
		return "a moment"
	}
	const day = 24 * time.Hour
	switch {
	case d >= 2*day:
		return fmt.Sprintf("%d days %d h", d/day, d%day/time.Hour)
	case d >= time.Hour:
		return fmt.Sprintf("%d h %d min", d/time.Hour, d%time.Hour/time.Minute)
	case d >= time.Minute:
		return fmt.Sprintf("%d min %d s", d/time.Minute, d%time.Minute/time.Second)
	}
	return fmt.Sprintf("%d s", d/time.Second)
}

// In says how far ahead a time is: "in 9 min 50 s", or "now" for less than a second and for the past.
func In(d time.Duration) string {
	if d < time.Second {
		return "now"
	}
	return "in " + Human(d)
}

// Short writes a duration as Go does, without its zero parts: "1h", "90s" as "1m30s".
func Short(d time.Duration) string {
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

// Duration is a time.Duration that is written as Short in JSON, as in logs.
type Duration time.Duration

// MarshalText returns Short.
func (d Duration) MarshalText() ([]byte, error) { return []byte(Short(time.Duration(d))), nil }

// UnmarshalText reads what MarshalText writes.
func (d *Duration) UnmarshalText(text []byte) error {
	v, err := time.ParseDuration(string(text))
	*d = Duration(v)
	return err
}
