// Package agent is the life of one key beside an app: mint, publish, extend, rotate, retire,
// revoke, and the recovery of every half-done step after a crash.
//
// One goroutine owns the state. It looks at what it holds (a current key, a successor on its way,
// old keys in their overlap), runs the first step that is due, and sleeps until the next one. A
// step that fails is tried again after a pause of its own; nothing is started over.
//
// What the agent relies on:
//
//   - The journal names a key before the request that could create it is sent, so a process that
//     is killed at any instant finds all its keys again.
//   - A new key is verified and published before the old one is revoked, an overlap later.
//   - Extending keeps the secret, so an app notices nothing.
//   - A key is dead only when the server says so and proves to be healthy; no clock declares a key dead.
//   - Times are kept on the monotonic and on the wall clock, and the earlier verdict wins, so that
//     neither a suspended machine nor a clock that was set makes the agent late.
//
// The package knows no HTTP and no files of the app: an Issuer speaks to balena, a Publisher
// writes what the app reads.
package agent
