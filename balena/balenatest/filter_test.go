package balenatest

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"
)

func TestFilters(t *testing.T) {
	row := fields{"id": int64(7), "name": "it's", "expiry_date": "2030-01-01T00:00:00.000Z", "description": nil}
	for filter, want := range map[string]bool{
		"id eq 7": true, "id eq 8": false, "id ne 8": true, "id gt 6": true, "id gt 7": false, "id ge 7": true, "id le 6": false,
		"name eq 'it''s'": true, "name eq 'its'": false, "name in ('a','it''s')": true, "name in ('a')": false, "id in (1,7,7)": true,
		"startswith(name,'it''')": true, "startswith(name,'s')": false, "startswith(description,'')": false,
		"(name eq 'x') or (id eq 7)": true, "id eq 1 or id eq 2 and id eq 7": false, "(id eq 7 or id eq 2) and id eq 7": true,
		"expiry_date lt '2030-01-01T00:00:00.001Z'": true, "expiry_date lt '2029-12-31T23:59:59.999-00:01'": true,
		"description lt '2030-01-01T00:00:00.000Z'": false, "description eq 'x'": false,
	} {
		c, err := parseFilter(filter)
		if err != nil {
			t.Errorf("%s: %v", filter, err)
		} else if c.holds(row) != want {
			t.Errorf("%s: %v", filter, !want)
		}
	}
	for _, filter := range []string{"", "id in ()", "id in (1,)", "id in (1", "name eq 'x", "id", "id eq", "id eq 1 and", "(id eq 1",
		"id eq 1)",
		"startswith(name)", "startswith(name,1)", "id maybe 1", "id eq 1 or "} {
		if _, err := parseFilter(filter); err == nil {
			t.Errorf("%q is taken for a filter", filter)
		}
	}
}

// TestLongRequestsAreRefused: a filter of 2,500 ids was answered, and one of 24 kB was not.
func TestLongRequestsAreRefused(t *testing.T) {
	s := New(Options{})
	base, session := s.Start(t), s.Session(s.DefaultUser(), 0)
	k := s.AddKey(s.DefaultUser(), "one", time.Time{})
	get := func(path string) (int, string) {
		req, _ := http.NewRequest(http.MethodGet, base+path, nil)
		req.Header.Set("Authorization", "Bearer "+session)
		resp, err := http.DefaultTransport.RoundTrip(req)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = resp.Body.Close() }()
		body, _ := io.ReadAll(resp.Body)
		return resp.StatusCode, string(body)
	}
	long := func(n int) string {
		return fmt.Sprintf("/v7/api_key?$select=id&$filter=id%%20in%%20(%d%s)", k.ID, strings.Repeat(",99999", n))
	}
	if code, body := get(long(2400)); code != 200 || body != fmt.Sprintf(`{"d":[{"id":%d}]}`, k.ID) {
		t.Errorf("2,400 ids: %d %s", code, body)
	}
	if code, body := get(long(4000)); code != http.StatusRequestHeaderFieldsTooLarge || body != "" {
		t.Errorf("24 kB: %d %s", code, body)
	}
	if code, _ := get("/v7/api_key/other"); code != http.StatusNotFound {
		t.Errorf("neither a resource nor a count: %d", code)
	}
}
