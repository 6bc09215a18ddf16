// Package balenatest is a stand-in for the balena API: users, sessions, keys, fleets and devices
// in memory, over real HTTP.
//
// It is held to the 186 exchanges with open-balena-api v49 in testdata, its oddities
// included: a DELETE without an id empties the account, a PATCH of an unknown id says 200, and
// minting with a misspelt date gives a key that never expires.
//
// Beyond that it serves tests: any request can be made to fail in any way before or after it took
// effect (Fault), the server can have two kinds of outage (SetDown, SetRestarting), its clock can
// be shifted, and it tells which keys are live and which requests it has seen. Time is
// time.Now(), so that it is virtual in a testing/synctest bubble; Listen then gives it an
// in-memory network.
package balenatest
