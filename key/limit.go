package key

import (
	"context"
	"time"
)

// MinTTL is the shortest life that a key is given at a time: below it a slow answer costs the key.
const MinTTL = 10 * time.Second

type tryTimeoutKey struct{}

// WithTryTimeout returns a context whose requests may take d each, where they may otherwise take longer: a process that
// is about to end, or a key that is about to expire, cannot wait for an answer as long as usual. 0 and less mean no
// such limit.
func WithTryTimeout(ctx context.Context, d time.Duration) context.Context {
	return context.WithValue(ctx, tryTimeoutKey{}, d)
}

// TryTimeout returns how long one request of ctx may take, and 0 if ctx says nothing about it.
func TryTimeout(ctx context.Context) time.Duration {
	d, _ := ctx.Value(tryTimeoutKey{}).(time.Duration)
	return max(0, d)
}
