// Command app is the app of demo.yaml: it reads the token from its file before each request, as an app
// should, asks the API who it is, and tells what it saw whenever something changed.
package main

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	defer stop()
	file, url := os.Getenv("TOKEN_FILE"), os.Getenv("BALENA_API_URL")+"/actor/v1/whoami"
	requests, tokens, last := 0, 0, ""
	for said := ""; ctx.Err() == nil; {
		token, answer := ask(ctx, file, url)
		if ctx.Err() != nil {
			break
		}
		requests++
		if token != last {
			last = token
			tokens++
		}
		if say := fmt.Sprintf("token %d is %s", tokens, answer); say != said {
			fmt.Println("app:", say)
			said = say
		}
		select {
		case <-ctx.Done():
		case <-time.After(time.Second):
		}
	}
	fmt.Printf("app: stopping after %d requests with %d tokens\n", requests, tokens)
}

// ask sends one request with the token of this moment and returns the server's verdict in words.
func ask(ctx context.Context, file, url string) (token, answer string) {
	raw, err := os.ReadFile(file)
	if err != nil {
		return "", err.Error()
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return string(raw), err.Error()
	}
	r.Header.Set("Authorization", "Bearer "+string(raw))
	got, err := http.DefaultClient.Do(r)
	if err != nil {
		return string(raw), err.Error()
	}
	_ = got.Body.Close()
	if got.StatusCode != http.StatusOK {
		return string(raw), "refused: " + got.Status
	}
	return string(raw), "accepted"
}
