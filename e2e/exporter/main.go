// Command exporter stands for the balena Prometheus exporter in the tests of docs/migrate.md: it reads BALENA_TOKEN once at its
// start, asks the API for the account's fleets at each scrape, ends when it is refused, and listens on port 8000.
package main

import (
	"encoding/json"
	"fmt"
	"log"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"
)

func main() {
	if len(os.Args) != 2 || os.Args[1] != "./main.py" {
		log.Fatalf("this is called as the exporter's image calls it, not %q", os.Args)
	}
	token := os.Getenv("BALENA_TOKEN")
	if token == "" {
		log.Fatal("Please set BALENA_TOKEN")
	}
	http.HandleFunc("GET /metrics", func(w http.ResponseWriter, _ *http.Request) {
		fleets, err := fleets(token)
		if err != nil {
			log.Fatal(err)
		}
		_, _ = fmt.Fprintln(w, "# HELP balena_devices_online Devices by status\n# TYPE balena_devices_online gauge")
		for name, online := range fleets {
			_, _ = fmt.Fprintf(w, "balena_devices_online{fleet_name=%q} %d\n", name, online)
		}
	})
	ended := make(chan os.Signal, 1)
	signal.Notify(ended, syscall.SIGTERM)
	go func() { <-ended; os.Exit(0) }()
	server := &http.Server{Addr: ":8000", ReadHeaderTimeout: time.Second}
	log.Fatal(server.ListenAndServe())
}

// fleets is how many devices each fleet has.
func fleets(token string) (map[string]int, error) {
	r, err := http.NewRequest(http.MethodGet, os.Getenv("BALENA_API_URL")+"/v7/application?$select=id,app_name,owns__device", nil)
	if err != nil {
		return nil, err
	}
	r.Header.Set("Authorization", "Bearer "+token)
	answer, err := http.DefaultClient.Do(r)
	if err != nil {
		return nil, err
	}
	defer func() { _ = answer.Body.Close() }()
	if answer.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("the API answered %s", answer.Status)
	}
	var rows struct {
		D []struct {
			Name    string `json:"app_name"`
			Devices []any  `json:"owns__device"`
		}
	}
	found := map[string]int{}
	if err := json.NewDecoder(answer.Body).Decode(&rows); err != nil {
		return nil, err
	}
	for _, row := range rows.D {
		found[row.Name] = len(row.Devices)
	}
	return found, nil
}
