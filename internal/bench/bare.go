package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/fsnotify/fsnotify"

	"github.com/balena-injector/injector/key"
)

// bareClient sends the requests of a key's life without anything else.
type bareClient struct {
	http    http.Client
	base    string
	session string
	key     key.Key
	id      int64
}

// send sends a request and returns the body of its answer, which must be 200.
func (c *bareClient) send(method, path, bearer string, body any) ([]byte, error) {
	raw, err := json.Marshal(body)
	if err != nil {
		return nil, err
	}
	req, err := http.NewRequest(method, c.base+path, strings.NewReader(string(raw)))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Authorization", "Bearer "+bearer)
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, err
	}
	answer, err := io.ReadAll(resp.Body)
	if resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s %s: %d %s", method, path, resp.StatusCode, answer)
	}
	return answer, errors.Join(err, resp.Body.Close())
}

// begin sends what a start takes: log in, mint, verify, write, find.
func (c *bareClient) begin() error {
	c.base = os.Getenv("BALENA_API_URL")
	session, err := c.send("POST", "/login_", "", map[string]string{
		"username": os.Getenv("BALENA_USERNAME"),
		"password": os.Getenv("BALENA_PASSWORD"),
	})
	if err != nil {
		return err
	}
	c.session = string(session)
	c.key = key.Draft("bare", key.User, 0, time.Now().Add(time.Hour))
	_, err = c.send("POST", "/api-key/v2", c.session, map[string]any{
		"actorType":   "user",
		"actorTypeId": json.Number(os.Getenv("BENCH_USER")),
		"roles":       []string{"named-user-api-key"},
		"name":        c.key.Name,
		"expiryDate":  c.key.Expiry.UTC().Format("2006-01-02T15:04:05.000Z"),
		"apiKey":      c.key.Secret.Reveal(),
	})
	if err != nil {
		return err
	}
	if _, err := c.send("GET", "/actor/v1/whoami", c.key.Secret.Reveal(), nil); err != nil {
		return err
	}
	if err := os.WriteFile(os.Getenv("INJECTOR_OUTPUT"), []byte(c.key.Secret.Reveal()), 0o440); err != nil {
		return err
	}
	raw, err := c.send("GET", "/v7/api_key?$select=id,name,expiry_date&$filter=name%20eq%20%27"+c.key.Name+"%27&$top=2", c.session, nil)
	if err != nil {
		return err
	}
	var rows struct{ D []struct{ ID int64 } }
	if err := json.Unmarshal(raw, &rows); err != nil || len(rows.D) != 1 {
		return fmt.Errorf("the key is not listed once: %s (%w)", raw, err)
	}
	c.id = rows.D[0].ID
	return nil
}

// end sends what a stop takes: remove the file, delete, read back.
func (c *bareClient) end() error {
	if err := os.Remove(os.Getenv("INJECTOR_OUTPUT")); err != nil {
		return err
	}
	row := fmt.Sprintf("/v7/api_key(%d)", c.id)
	if _, err := c.send("DELETE", row, c.session, nil); err != nil {
		return err
	}
	_, err := c.send("GET", row+"?$select=id", c.session, nil)
	return err
}

// bare is init without anything else.
func bare() error { return new(bareClient).begin() }

// bareLife is run without anything else: it ends at SIGTERM. It watches the file's directory, as the
// injector does to notice that the file is gone: Linux takes 5 to 15 ms to close a watch, also at the end of a program.
func bareLife() (err error) {
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGTERM)
	c := new(bareClient)
	if err := c.begin(); err != nil {
		return err
	}
	watcher, err := fsnotify.NewWatcher()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, watcher.Close()) }()
	if err := watcher.Add(filepath.Dir(os.Getenv("INJECTOR_OUTPUT"))); err != nil {
		return err
	}
	<-stop
	return c.end()
}
