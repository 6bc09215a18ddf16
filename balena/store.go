package balena

import (
	"errors"
	"sync"
	"time"
)

// storePatience is how long to wait for a Store. What it keeps saves a login, or tells the next process something; a
// slow disk must not keep a request from being sent in time.
const storePatience = 500 * time.Millisecond

// errSlowStore is why something counts as not saved; it may be all the same.
var errSlowStore = errors.New("its disk is too slow")

// patiently returns a function that saves in a Store and waits for storePatience at most. What is saved later is never
// overtaken by what was saved earlier.
func patiently(store Store) func([]byte) error {
	var mu sync.Mutex
	var newest, last int
	return func(data []byte) error {
		last++ // only one goroutine at a time saves: who has the account's turn
		n := last
		done := make(chan error, 1)
		go func() {
			mu.Lock()
			defer mu.Unlock()
			if n < newest {
				done <- nil
				return
			}
			newest = n
			done <- store.Save(data)
		}()
		timer := time.NewTimer(storePatience)
		defer timer.Stop()
		select {
		case err := <-done:
			return err
		case <-timer.C:
			return errSlowStore
		}
	}
}
