package balena_test

import (
	"context"
	"fmt"
	"log"
	"net/http/httptest"
	"time"

	"github.com/balena-injector/injector/balena"
	"github.com/balena-injector/injector/balena/balenatest"
	"github.com/balena-injector/injector/key"
	"github.com/balena-injector/injector/settle"
)

// A key's whole life: minted, proven, extended and revoked. The stand-in takes the place of the API.
func Example() {
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
	issuer := balena.NewIssuer(account, balena.IssuerConfig{Prefix: "example", Kind: key.User})

	ctx := context.Background()
	draft, err := issuer.Draft(ctx, time.Hour) // write it down before it is sent
	if err != nil {
		log.Fatal(err)
	}
	k, err := settle.Settle(ctx, issuer, draft) // also if an answer is lost
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("live:", len(server.Live()), "accepted:", issuer.Verify(ctx, k) == nil)

	if k, err = issuer.Extend(ctx, k, time.Now().Add(2*time.Hour)); err != nil {
		log.Fatal(err)
	}
	fmt.Println("expires in two hours:", time.Until(k.Expiry) > 119*time.Minute)

	if err := issuer.Revoke(ctx, k); err != nil {
		log.Fatal(err)
	}
	fmt.Println("live:", len(server.Live()))
	// Output:
	// live: 1 accepted: true
	// expires in two hours: true
	// live: 0
}

// A failure says by its class whether and when to try again.
func ExampleIssuer_Verify() {
	server := balenatest.New(balenatest.Options{})
	api := httptest.NewServer(server)
	defer api.Close()
	client, err := balena.NewClient(balena.Config{URL: api.URL})
	if err != nil {
		log.Fatal(err)
	}
	defer client.Close()
	account, err := balena.NewAccount(client, balena.AccountConfig{Credentials: balena.Credentials{
		Session: func() (key.Secret, error) { return key.NewSecret(server.Session(server.DefaultUser(), 0)), nil },
	}})
	if err != nil {
		log.Fatal(err)
	}
	issuer := balena.NewIssuer(account, balena.IssuerConfig{Kind: key.User})

	unknown := key.Draft("example", key.User, 1, time.Now().Add(time.Hour))
	err = issuer.Verify(context.Background(), unknown)
	class, _ := key.ClassOf(err)
	fmt.Println(class)

	server.SetDown(true) // its database is away: every credential gets a 401
	err = issuer.Verify(context.Background(), unknown)
	class, _ = key.ClassOf(err)
	fmt.Println(class)
	// Output:
	// gone
	// outage
}
