package balenatest

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"os"
	"reflect"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"
)

// exchange is one recorded request with its answer; see testdata.
type exchange struct {
	ID      string
	Set     map[string]string
	Wait    float64
	Times   int
	Request struct {
		Method, Path string
		Auth         any
		JSON         any
		Raw          *string
		Headers      map[string]string
	}
	Response struct {
		Status  int
		Type    string
		Headers map[string]string
		Body    *string
		Matches string
		JSON    any
		Claims  *struct{ Of, AuthTime string }
	}
	Capture map[string]string
}

// recorded reads the exchanges of a file.
func recorded(t *testing.T, name string, want int) []exchange {
	t.Helper()
	raw, err := os.ReadFile("testdata/" + name)
	if err != nil {
		t.Fatal(err)
	}
	var file struct{ Exchanges []exchange }
	if err := json.Unmarshal(raw, &file); err != nil {
		t.Fatal(err)
	}
	if n := len(file.Exchanges); n != want {
		t.Fatalf("%s has %d exchanges, recorded were %d", name, n, want)
	}
	return file.Exchanges
}

// TestContract replays what was recorded from the real server.
func TestContract(t *testing.T) {
	s := New(Options{})
	u := s.DefaultUser()
	p := &replay{t: t, server: s, base: s.Start(t), vars: map[string]string{
		"username": u.Name, "email": u.Email, "password": u.Password, "run": hexText(8),
		"fleet_id": fmt.Sprint(s.DefaultFleet().ID), "device_id": fmt.Sprint(s.DefaultDevice().ID)}}
	for _, x := range append(recorded(t, "contract.json", 144), recorded(t, "many.json", 42)...) {
		p.run(x)
	}
	if live := s.Live(); len(live) > 3 { // the three fleet and device keys, which no session can delete
		for _, k := range live {
			if k.Kind == "user" {
				t.Errorf("user key %s outlived the deletion of all", k.Name)
			}
		}
	}
}

type replay struct {
	t      *testing.T
	server *Server
	base   string
	vars   map[string]string
}

func (p *replay) run(x exchange) {
	for name, value := range x.Set {
		p.vars[name] = p.expandText(value)
	}
	time.Sleep(time.Duration(x.Wait * float64(time.Second))) // the recording's own pauses: seconds have to pass at the server
	var status int
	var header http.Header
	var body string
	for range max(1, x.Times) {
		status, header, body = p.send(x)
	}
	for _, d := range p.differences(x, status, header, body) {
		p.t.Errorf("%s: %s", x.ID, d)
	}
	for name, source := range x.Capture {
		p.vars[name] = capture(source, body)
	}
}

var variable = regexp.MustCompile(`\$\{([\w:.-]+)\}`)

func (p *replay) expandText(text string) string {
	return variable.ReplaceAllStringFunc(text, func(m string) string {
		name := m[2 : len(m)-1]
		if rest, ok := strings.CutPrefix(name, "in:"); ok {
			seconds, _ := strconv.ParseFloat(rest, 64)
			return stamp(time.Now().Add(time.Duration(seconds * float64(time.Second))))
		}
		if name == "hex32" {
			return hexText(32)
		}
		if n, err := strconv.Atoi(strings.TrimPrefix(name, "x")); err == nil && name[0] == 'x' {
			return strings.Repeat("x", n)
		}
		value, ok := p.vars[name]
		if !ok {
			p.t.Fatalf("no variable %s", name)
		}
		return value
	})
}

func (p *replay) expand(v any) any {
	switch v := v.(type) {
	case string:
		if rest, ok := strings.CutPrefix(v, "${int:"); ok {
			n, _ := strconv.ParseFloat(p.vars[strings.TrimSuffix(rest, "}")], 64)
			return n
		}
		return p.expandText(v)
	case []any:
		out := make([]any, len(v))
		for i := range v {
			out[i] = p.expand(v[i])
		}
		return out
	case map[string]any:
		out := map[string]any{}
		for k, item := range v {
			out[k] = p.expand(item)
		}
		return out
	}
	return v
}

func (p *replay) token(auth any) string {
	if name, ok := auth.(string); ok {
		return p.vars[name]
	}
	spec := auth.(map[string]any)
	c := decodeClaims(p.t, p.vars[spec["jwt"].(string)])
	now := time.Now()
	if age, ok := spec["age"].(float64); ok {
		c["authTime"] = now.UnixMilli() - int64(age)*1000
	}
	if spec["expired"] == true {
		c["iat"], c["exp"] = now.Unix()-7200, now.Unix()-3600
	}
	if spec["pending_2fa"] == true {
		c["twoFactorRequired"] = true
	}
	body, _ := json.Marshal(c)
	text := base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"HS256","typ":"JWT"}`)) + "." + base64.RawURLEncoding.EncodeToString(body)
	sum := mac(text)
	if spec["forged"] == true {
		sum[0]++
	}
	return text + "." + base64.RawURLEncoding.EncodeToString(sum)
}

func decodeClaims(t *testing.T, token string) map[string]any {
	var c map[string]any
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		t.Fatalf("no session: %q", token)
	}
	raw, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err == nil {
		d := json.NewDecoder(bytes.NewReader(raw))
		d.UseNumber()
		err = d.Decode(&c)
	}
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func (p *replay) send(x exchange) (int, http.Header, string) {
	var body io.Reader
	if x.Request.JSON != nil {
		raw, _ := json.Marshal(p.expand(x.Request.JSON))
		body = bytes.NewReader(raw)
	} else if x.Request.Raw != nil {
		body = strings.NewReader(p.expandText(*x.Request.Raw))
	}
	path, rest, _ := strings.Cut(p.expandText(x.Request.Path), "?")
	u := p.base + path
	if rest != "" {
		u += "?" + escapeQuery(rest)
	}
	req, err := http.NewRequest(x.Request.Method, u, body)
	if err != nil {
		p.t.Fatal(err)
	}
	if x.Request.JSON != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	for name, value := range x.Request.Headers {
		req.Header.Set(name, value)
	}
	if x.Request.Auth != nil {
		req.Header.Set("Authorization", "Bearer "+p.token(x.Request.Auth))
	}
	resp, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		p.t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	raw, err := io.ReadAll(resp.Body)
	if err != nil {
		p.t.Fatal(err)
	}
	return resp.StatusCode, resp.Header, string(raw)
}

// escapeQuery escapes what a query must not hold, and leaves what is escaped already.
func escapeQuery(raw string) string {
	var out strings.Builder
	for _, r := range raw {
		if strings.ContainsRune("/?=&$,()'*:-_.~%", r) ||
			r < 128 && (r >= '0' && r <= '9' || r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z') {
			out.WriteRune(r)
		} else {
			out.WriteString(url.PathEscape(string(r)))
		}
	}
	return out.String()
}

func (p *replay) differences(x exchange, status int, header http.Header, body string) (found []string) {
	want := x.Response
	add := func(format string, args ...any) { found = append(found, fmt.Sprintf(format, args...)) }
	if status != want.Status {
		add("status %d, recorded %d", status, want.Status)
	}
	if got, _, _ := strings.Cut(header.Get("Content-Type"), ";"); want.Type != "" && got != want.Type {
		add("type %q, recorded %q", got, want.Type)
	}
	for name, pattern := range want.Headers {
		if !regexp.MustCompile("^(?:" + pattern + ")$").MatchString(header.Get(name)) {
			add("%s is %q, recorded %q", name, header.Get(name), pattern)
		}
	}
	if want.Body != nil && body != p.expandText(*want.Body) {
		add("body %q, recorded %q", body, p.expandText(*want.Body))
	}
	if want.Matches != "" && !regexp.MustCompile("(?s)^(?:"+want.Matches+")$").MatchString(body) {
		add("body %q does not match %q", body, want.Matches)
	}
	if want.JSON != nil {
		var got any
		if err := json.Unmarshal([]byte(body), &got); err != nil {
			add("body %q is not JSON", body)
		} else {
			found = append(found, unlike("$", p.expand(want.JSON), got)...)
		}
	}
	if want.Claims != nil {
		got, base := decodeClaims(p.t, body), decodeClaims(p.t, p.vars[want.Claims.Of])
		at, _ := got["authTime"].(json.Number).Int64()
		if want.Claims.AuthTime == "now" && time.Since(time.UnixMilli(at)).Abs() > 30*time.Second ||
			want.Claims.AuthTime == "kept" && !reflect.DeepEqual(got["authTime"], base["authTime"]) {
			add("authTime %v from %v", got["authTime"], base["authTime"])
		}
	}
	return found
}

// unlike tells where got lacks what want has; "*" is any value.
func unlike(where string, want, got any) (found []string) {
	switch want := want.(type) {
	case string:
		if want == "*" {
			return nil
		}
	case map[string]any:
		object, ok := got.(map[string]any)
		if !ok {
			return []string{fmt.Sprintf("%s is %v", where, got)}
		}
		for name := range maps.Keys(want) {
			if _, ok := object[name]; !ok {
				found = append(found, where+"."+name+" is missing")
				continue
			}
			found = append(found, unlike(where+"."+name, want[name], object[name])...)
		}
		return found
	case []any:
		list, ok := got.([]any)
		if !ok || len(list) != len(want) {
			return []string{fmt.Sprintf("%s is %v, recorded %d items", where, got, len(want))}
		}
		for i := range want {
			found = append(found, unlike(fmt.Sprintf("%s[%d]", where, i), want[i], list[i])...)
		}
		return found
	}
	if !reflect.DeepEqual(want, got) {
		return []string{fmt.Sprintf("%s is %v, recorded %v", where, got, want)}
	}
	return nil
}

func capture(source, body string) string {
	if source == "body" {
		return body
	}
	var v any
	_ = json.Unmarshal([]byte(body), &v)
	if source != "string" {
		for step := range strings.SplitSeq(source, ".") {
			if n, err := strconv.Atoi(step); err == nil {
				list, _ := v.([]any)
				if n >= len(list) {
					return ""
				}
				v = list[n]
			} else {
				object, _ := v.(map[string]any)
				v = object[step]
			}
		}
	}
	if f, ok := v.(float64); ok {
		return strconv.FormatInt(int64(f), 10)
	}
	return fmt.Sprint(v)
}
