package notify

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// serve starts a server, and returns its URL with something secret in it.
func serve(t *testing.T, handle http.HandlerFunc) (*httptest.Server, *url.URL) {
	t.Helper()
	server := httptest.NewServer(handle)
	t.Cleanup(server.Close)
	u, err := url.Parse(server.URL + "/s3cret-path?q=s3cret-query")
	if err != nil {
		t.Fatal(err)
	}
	u.User = url.UserPassword("user", "s3cret-password")
	return server, u
}

// TestARequestHasTheEvent in its headers, and with methods that can have a body as JSON, too. What the event does not have
// is left out.
func TestARequestHasTheEvent(t *testing.T) {
	for _, c := range []struct {
		method string
		key    string
		body   string
	}{
		{"POST", "fleet", `{"key":"fleet","generation":3,"name":"injector-3","expiry":"2030-01-02T03:04:05+01:00"}`},
		{"PUT", "", `{"generation":3,"name":"injector-3","expiry":"2030-01-02T03:04:05+01:00"}`},
		{"GET", "fleet", ""},
		{"HEAD", "", ""},
	} {
		t.Run(c.method, func(t *testing.T) {
			var seen *http.Request
			var body []byte
			_, u := serve(t, func(_ http.ResponseWriter, r *http.Request) {
				seen = r
				body, _ = io.ReadAll(r.Body)
			})
			e := event
			e.Key = c.key
			if err := (&HTTP{Method: c.method, URL: u}).Tell(t.Context(), e); err != nil {
				t.Fatal(err)
			}
			if seen.Method != c.method || seen.URL.String() != "/s3cret-path?q=s3cret-query" {
				t.Errorf("%s %s", seen.Method, seen.URL)
			}
			if string(body) != c.body {
				t.Errorf("body %s", body)
			}
			kind := ""
			if c.body != "" {
				kind = "application/json"
			}
			for name, want := range map[string]string{
				"Content-Type":       kind,
				"X-Token-Generation": "3",
				"X-Token-Name":       "injector-3",
				"X-Token-Expiry":     "2030-01-02T02:04:05Z",
				"X-Token-Key":        c.key,
			} {
				if got := seen.Header.Values(name); strings.Join(got, ",") != want || want == "" && got != nil {
					t.Errorf("%s is %q", name, got)
				}
			}
			var back Event
			if c.body != "" && (json.Unmarshal(body, &back) != nil || !back.Expiry.Equal(event.Expiry)) {
				t.Errorf("read again, it is %+v", back)
			}
		})
	}
}

// TestAnAnswerIsGoodOrNot by its first digit. Where it sends one is not where one goes.
func TestAnAnswerIsGoodOrNot(t *testing.T) {
	for status, want := range map[int]string{
		200: "",
		204: "",
		299: "",
		300: "the answer is 300 Multiple Choices",
		302: "the answer is 302 Found",
		307: "the answer is 307 Temporary Redirect",
		404: "the answer is 404 Not Found",
		503: "the answer is 503 Service Unavailable",
	} {
		t.Run(fmt.Sprint(status), func(t *testing.T) {
			var requests atomic.Int32
			_, u := serve(t, func(w http.ResponseWriter, _ *http.Request) {
				requests.Add(1)
				w.Header().Set("Location", "/elsewhere")
				w.WriteHeader(status)
			})
			got := ""
			if err := (&HTTP{Method: "POST", URL: u}).Tell(t.Context(), event); err != nil {
				got = err.Error()
			}
			if got != want || requests.Load() != 1 {
				t.Errorf("%d requests, error %q", requests.Load(), got)
			}
		})
	}
}

// TestALongAnswerIsGood too, though nobody reads it to its end.
func TestALongAnswerIsGood(t *testing.T) {
	ended := make(chan struct{})
	_, u := serve(t, func(w http.ResponseWriter, r *http.Request) {
		defer close(ended)
		for r.Context().Err() == nil {
			if _, err := w.Write(make([]byte, 4096)); err != nil {
				return
			}
		}
	})
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := (&HTTP{Method: "GET", URL: u}).Tell(ctx, event); err != nil || ctx.Err() != nil {
		t.Error(err, ctx.Err())
	}
	<-ended
}

// TestNothingTellsWhatIsSecretInAURL neither its name nor an error of any kind.
func TestNothingTellsWhatIsSecretInAURL(t *testing.T) {
	hangs, slow := serve(t, func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body) // the end of the connection is seen after that
		select {
		case <-r.Context().Done():
		case <-time.After(time.Minute):
		}
	})
	closed, nobody := serve(t, nil)
	closed.Close()
	late, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	for name, c := range map[string]struct {
		ctx    context.Context
		method string
		url    *url.URL
		is     error
	}{
		"a server that hangs": {late, "POST", slow, context.DeadlineExceeded},
		"no server":           {t.Context(), "POST", nobody, nil},
		"no method":           {t.Context(), "NO METHOD", slow, nil},
	} {
		h := &HTTP{Method: c.method, URL: c.url}
		err := h.Tell(c.ctx, event)
		if err == nil || c.is != nil && !errors.Is(err, c.is) {
			t.Errorf("%s: error %v", name, err)
			continue
		}
		if strings.Contains(err.Error(), "s3cret") || strings.Contains(h.String(), "s3cret") {
			t.Errorf("%s: %s: %v", name, h, err)
		}
	}
	if got := (&HTTP{Method: "PUT", URL: slow}).String(); got != "PUT "+hangs.URL {
		t.Errorf("its name is %q", got)
	}
}

// TestARedirectThatIsNoURLShowsNothing repeats the path, which may be a secret, in a form that cannot be parsed.
func TestARedirectThatIsNoURLShowsNothing(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Location", r.URL.Path+"%zz")
		w.WriteHeader(http.StatusFound)
	}))
	defer server.Close()
	u, err := url.Parse(server.URL + "/s3cret-path")
	if err != nil {
		t.Fatal(err)
	}
	err = (&HTTP{Method: http.MethodPost, URL: u}).Tell(t.Context(), Event{Generation: 1})
	if err == nil || strings.Contains(err.Error(), "s3cret") {
		t.Errorf("got %v", err)
	}
}
