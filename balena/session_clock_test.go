package balena

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/balena-injector/injector/key"
)

func FuzzSession(f *testing.F) {
	f.Add("eyJhbGciOiJIUzI1NiJ9.eyJpZCI6MSwiZXhwIjoyfQ.x")
	f.Add("a.b.c")
	f.Add("")
	f.Add("..")
	f.Fuzz(func(t *testing.T, text string) {
		s, err := parseSession(key.NewSecret(text))
		if err != nil {
			if len(text) > 8 && strings.Contains(err.Error(), text) {
				t.Errorf("the error shows the token: %v", err)
			}
			return
		}
		if s.userID <= 0 || s.expires.IsZero() {
			t.Errorf("a session without user or end: %+v", s)
		}
		_ = s.dueAt(time.Now())
		_ = s.fresh(time.Now())
	})
}

func FuzzQuoted(f *testing.F) {
	f.Add("secret0123456789", `"the secret0123456789 is bad"`)
	f.Add("pass", "pass pass")
	f.Fuzz(func(t *testing.T, secret, body string) {
		if len(secret) < 4 || strings.Contains("[secret]…", secret) {
			return
		}
		if got := quoted([]byte(body), key.NewSecret(secret)); strings.Contains(got, secret) || len(got) > maxQuoted+3 ||
			strings.ContainsAny(got, "\n\r\x1b") {
			t.Errorf("quoted %q", got)
		}
	})
}

func FuzzRetryAfter(f *testing.F) {
	f.Add("7", "Mon, 01 Jan 2001 00:00:00 GMT")
	f.Add("Mon, 01 Jan 2001 00:00:00 GMT", "")
	f.Add("-9223372036854775808", "x")
	f.Fuzz(func(t *testing.T, header, date string) {
		wait, ok := retryAfter(&http.Response{StatusCode: 429, Header: http.Header{"Retry-After": {header}, "Date": {date}}})
		if !ok || wait < time.Second || wait > time.Hour {
			t.Errorf("%q: %v, %v", header, wait, ok)
		}
	})
}

func FuzzRows(f *testing.F) {
	f.Add([]byte(`{"d":[{"id":1,"name":"x","expiry_date":"2031-02-03T04:05:06.789Z"}]}`))
	f.Add([]byte(`{"d":null}`))
	f.Add([]byte(`[]`))
	f.Fuzz(func(t *testing.T, body []byte) {
		rows, err := readRows(&request{op: "x"}, &answer{status: 200, body: body})
		if err != nil && !key.Is(err, key.Outage) {
			t.Errorf("class of %v", err)
		}
		for _, r := range rows {
			_ = merge(key.Key{}, r)
		}
	})
}

func TestSessionsAreLookedAfterInTime(t *testing.T) {
	start := time.Unix(1e9, 0)
	s := &session{issued: start, expires: start.Add(10 * time.Hour), sliding: true}
	if got := s.dueAt(time.Now()).Sub(start); got != 5*time.Hour {
		t.Errorf("a sliding session after %v", got)
	}
	s.sliding = false
	if got := s.dueAt(time.Now()).Sub(start); got != 9*time.Hour {
		t.Errorf("a fixed session after %v", got)
	}
}

func TestTheServersClock(t *testing.T) {
	var c serverClock
	now := time.Now()
	if _, ok := c.now(now); ok {
		t.Error("a time before any answer")
	}
	date := time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)
	c.note(date, now)
	if got, ok := c.now(now.Add(time.Minute)); !ok || !got.Equal(date.Add(time.Minute)) {
		t.Errorf("%v, %v", got, ok)
	}
	if skew, ok := c.skew(); !ok || skew != now.Round(0).Sub(date) {
		t.Errorf("skew %v, %v", skew, ok)
	}
}
