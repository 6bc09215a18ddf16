// Package balena speaks the part of the balena API that makes, extends and revokes API keys,
// and knows where that API lies.
//
// An Account holds a credential and keeps a session for it: it logs in, answers a two-factor
// request, refreshes, and makes the session fresh again before it mints. An Issuer works on the
// keys of one kind and target in the name of an Account. Both report failures as Error, whose
// key.Class says whether and when to try again.
//
// What the package guards against was measured on open-balena-api v49 and is recorded in
// balenatest/testdata/contract.json:
//
//   - 200 to a PATCH or DELETE proves nothing, so both are read back.
//   - 401 may be an outage of the server's database, so it takes a second opinion.
//   - Minting a user key needs a login less than 20 minutes old.
//   - An unanswered mint may still take effect, so the caller chooses the secret and sends the
//     same mint again until 200 or 409.
//   - DELETE without an id empties the account, so deletions are built from a positive id only.
//
// Nothing secret is ever part of a URL or of an error.
package balena
