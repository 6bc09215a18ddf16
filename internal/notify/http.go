package notify

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// HTTP sends a request: the event as JSON (not with GET and HEAD) and in headers X-Token-Generation,
// X-Token-Name, X-Token-Expiry and X-Token-Key. Any answer of 200 to 299 is good.
type HTTP struct {
	Method string
	URL    *url.URL
}

// String names the request without the rest of its URL, which may be a secret: that of a webhook is.
func (h *HTTP) String() string { return h.Method + " " + h.URL.Scheme + "://" + h.URL.Host }

// Tell sends the request. Redirects are not followed.
func (h *HTTP) Tell(ctx context.Context, e Event) error {
	var body io.Reader
	if h.Method != http.MethodGet && h.Method != http.MethodHead {
		raw, err := json.Marshal(e)
		if err != nil {
			return err
		}
		body = bytes.NewReader(raw)
	}
	req, err := http.NewRequestWithContext(ctx, h.Method, h.URL.String(), body)
	if err != nil {
		return err
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	for name, value := range map[string]string{"Generation": strconv.Itoa(e.Generation), "Name": e.Name,
		"Expiry": e.Expiry.UTC().Format(time.RFC3339), "Key": e.Key} {
		if value != "" {
			req.Header.Set("X-Token-"+name, value)
		}
	}
	client := &http.Client{Transport: &http.Transport{Proxy: http.ProxyFromEnvironment, DisableKeepAlives: true},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	resp, err := client.Do(req)
	if err != nil {
		if u, ok := errors.AsType[*url.Error](err); ok {
			err = u.Err // without the URL
		}
		if strings.Contains(err.Error(), "Location") { // which may repeat the URL
			return errors.New("the answer redirects to what is not a URL")
		}
		return err
	}
	defer func() { _ = resp.Body.Close() }()
	_, _ = io.Copy(io.Discard, io.LimitReader(resp.Body, 64<<10))
	if resp.StatusCode < 200 || resp.StatusCode > 299 {
		return fmt.Errorf("the answer is %s", resp.Status)
	}
	return nil
}
