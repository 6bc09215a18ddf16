package agent_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"log/slog"
	"net/http/httptest"
	"sync"
	"time"

	"github.com/balena-injector/injector/agent"
	"github.com/balena-injector/injector/balena"
	"github.com/balena-injector/injector/balena/balenatest"
	"github.com/balena-injector/injector/key"
)

// inProcess is a Publisher whose app is this process.
type inProcess struct {
	mu    sync.Mutex
	token key.Secret
}

func (p *inProcess) Prove(context.Context) error { return nil }

func (p *inProcess) Publish(_ context.Context, pub key.Publication) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.token = pub.Key.Secret
	return nil
}

func (p *inProcess) Describe(context.Context, key.Publication) error { return nil }

func (p *inProcess) Inspect(_ context.Context, pub key.Publication) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.token.Equal(pub.Key.Secret) {
		return errors.New("another token is shown")
	}
	return nil
}

func (p *inProcess) Remove(context.Context) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.token = key.Secret{}
	return nil
}

func (p *inProcess) Sweep(context.Context) error { return nil }

// inMemoryOnly is a Store that ends with this process. A real one outlives it: what it keeps is how the next start finds
// the keys of this one.
type inMemoryOnly struct {
	mu      sync.Mutex
	journal []byte
}

func (s *inMemoryOnly) Load(context.Context) ([]byte, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.journal, nil
}

func (s *inMemoryOnly) Save(_ context.Context, encode func(secrets bool) ([]byte, error)) (err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.journal, err = encode(true)
	return err
}

func (s *inMemoryOnly) Displaced() bool                                  { return false }
func (s *inMemoryOnly) SetAside(context.Context) (where string, _ error) { return "nowhere", nil }
func (s *inMemoryOnly) Sweep() error                                     { return nil }

// An agent keeps one key alive for its app until it is stopped, and revokes it then.
func ExampleAgent_Run() {
	server := balenatest.New(balenatest.Options{})
	api := httptest.NewServer(server)
	defer api.Close()
	user := server.DefaultUser()
	client, err := balena.NewClient(balena.Config{URL: api.URL})
	if err != nil {
		log.Fatal(err)
	}
	defer client.Close()
	account, err := balena.NewAccount(client, balena.AccountConfig{Credentials: balena.Credentials{
		Username: user.Name,
		Password: func() (key.Secret, error) { return key.NewSecret(user.Password), nil },
	}})
	if err != nil {
		log.Fatal(err)
	}

	times := agent.Times{TTL: time.Hour, MaxTTL: 24 * time.Hour, Overlap: time.Minute, Check: 5 * time.Minute}
	budget := agent.NewBudget(times, false)
	published := make(chan key.Publication, 1)
	a := agent.New(agent.Config{
		Issuer:          balena.NewIssuer(account, balena.IssuerConfig{Prefix: "example", Kind: key.User, Gate: budget}),
		Publisher:       &inProcess{},
		Store:           &inMemoryOnly{},
		Budget:          budget,
		Times:           times,
		URL:             api.URL,
		Login:           user.Name,
		Kind:            key.User,
		ShutdownTimeout: 7 * time.Second,
		Log:             slog.New(slog.DiscardHandler),
		Announce:        func(p key.Publication, _ bool) { published <- p },
	})
	stop, end := context.WithCancelCause(context.Background())
	ended := make(chan error)
	go func() { ended <- a.Run(stop, context.Background()) }()

	p := <-published
	fmt.Println("generation", p.Generation, "accepted:", server.Accepts(p.Key.Secret.Reveal()))
	end(errors.New("the app has ended"))
	fmt.Println("error:", <-ended, "live keys:", len(server.Live()))
	// Output:
	// generation 1 accepted: true
	// error: <nil> live keys: 0
}
