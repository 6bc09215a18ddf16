package balena

import (
	"encoding/json"
	"fmt"
	"strings"
	"time"
	"unicode"

	"github.com/balena-injector/injector/key"
)

// Error is a failed request, or one that was not sent. Its text names the operation, the status
// and the reason; it holds no secret, also when the server's answer echoes one.
type Error struct {
	Class  key.Class
	Op     string        // what was to be done, such as "mint a key"
	Status int           // the answer's HTTP status; 0 without an answer
	Wait   time.Duration // how long to wait before the next try; 0: the class alone says so
	// Unasked reports that the server was not asked: what it refused before is not tried again at once.
	Unasked bool
	// Locked reports that it was not asked although a person wanted that: the account could be locked out.
	Locked bool
	Reason string // why, in words; may be empty
	Cause  Cause  // what kind of trouble it is, where that tells what would help; may be empty
	Err    error  // what lies below (a network error); may be nil
}

// Error returns "OP: STATUS, REASON".
func (e *Error) Error() string {
	parts := make([]string, 0, 3)
	if e.Status != 0 {
		parts = append(parts, fmt.Sprintf("the server answered %d", e.Status))
	}
	if e.Reason != "" {
		parts = append(parts, e.Reason)
	}
	if e.Err != nil {
		parts = append(parts, e.Err.Error())
	}
	if len(parts) == 0 {
		parts = append(parts, e.Class.String())
	}
	return e.Op + ": " + strings.Join(parts, ", ")
}

// Unwrap returns the error below.
func (e *Error) Unwrap() error { return e.Err }

// FailureClass makes Error a key.Failure.
func (e *Error) FailureClass() key.Class { return e.Class }

// RetryAfter makes Error a key.Failure.
func (e *Error) RetryAfter() time.Duration { return e.Wait }

const (
	maxQuoted = 160 // how much of a server's message an error quotes
	longWord  = 16  // words this long may be keys or sessions, so they are not quoted
)

// quoted returns a server's message for people: only what came as a JSON string or plain text,
// in one line, capped, and without any word long enough to be a secret that we do not know of. It returns "" if one of
// the secrets that were sent could be in it unseen.
func quoted(body []byte, sent ...key.Secret) string {
	for _, s := range sent {
		if !s.IsZero() && !longInAnyForm(s.Reveal()) {
			return ""
		}
	}
	text := strings.TrimSpace(string(body))
	var message string
	if json.Unmarshal([]byte(text), &message) == nil {
		text = message
	}
	if strings.HasPrefix(text, "<") || strings.HasPrefix(text, "{") || strings.HasPrefix(text, "[") {
		return "" // a page or an object, not a message for people
	}
	words := strings.Fields(oneLine(text))
	for i, w := range words {
		if len(w) >= longWord {
			words[i] = "…"
		}
	}
	text = strings.Join(words, " ")
	if len(text) > maxQuoted {
		text = strings.ToValidUTF8(text[:maxQuoted], "") + "…"
	}
	return text
}

// longInAnyForm reports whether a secret stays one long word however a server writes it: escaped, in base64, in a URL.
// Keys and sessions do. A password may be short, or have characters at which one of those forms would cut it.
func longInAnyForm(secret string) bool {
	return len(secret) >= longWord && strings.Trim(secret, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-") == ""
}

// oneLine puts single blanks where white space, unprintable characters and bytes that are no text
// are.
func oneLine(text string) string {
	text = strings.ToValidUTF8(text, " ")
	return strings.Join(strings.FieldsFunc(text, func(r rune) bool { return unicode.IsSpace(r) || !unicode.IsPrint(r) }), " ")
}
