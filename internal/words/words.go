// Package words writes times and durations the way people say them.
package words

import (
	"encoding/json"
	"fmt"
	"strings"
	"time"
	"unicode/utf8"
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

// Seconds is a time.Duration that is a number of seconds in JSON, to the millisecond.
type Seconds time.Duration

// MarshalJSON writes the number.
func (s Seconds) MarshalJSON() ([]byte, error) { return json.Marshal(InSeconds(time.Duration(s))) }

// UnmarshalJSON reads what MarshalJSON writes.
func (s *Seconds) UnmarshalJSON(text []byte) error {
	var number float64
	err := json.Unmarshal(text, &number)
	*s = Seconds(number * float64(time.Second))
	return err
}

// InSeconds is d as programs read it: a number of seconds, to the millisecond.
func InSeconds(d time.Duration) float64 {
	return float64(d.Round(time.Millisecond).Milliseconds()) / 1000
}

// Wrap returns a text in lines of width characters at most, but for words that are longer. What was between its words does
// not matter.
func Wrap(text string, width int) []string {
	var lines []string
	line, length := "", 0
	for word := range strings.FieldsSeq(text) {
		n := utf8.RuneCountInString(word)
		switch {
		case line == "":
			line, length = word, n
		case length+1+n <= width:
			line, length = line+" "+word, length+1+n
		default:
			lines = append(lines, line)
			line, length = word, n
		}
	}
	if line != "" {
		lines = append(lines, line)
	}
	return lines
}
