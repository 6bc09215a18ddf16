package key

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"
	"unicode/utf16"
)

const marked = "S3CRET-mark-S3CRET"

func TestSecretCannotBePrinted(t *testing.T) {
	s := NewSecret(marked)
	type inner struct {
		Shown  Secret
		hidden Secret
	}
	values := []any{s, &s, []Secret{s}, map[string]Secret{"k": s}, inner{s, s}, &inner{s, s}, Key{Secret: s},
		fmt.Errorf("wrapped: %v", s), struct{ any }{s}}
	for i, v := range values {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d", "%T", "%p", "%10.3s"} {
			check(t, fmt.Sprintf("value %d with %s", i, verb), fmt.Sprintf(verb, v))
		}
		var out bytes.Buffer
		for _, h := range []slog.Handler{slog.NewTextHandler(&out, nil), slog.NewJSONHandler(&out, nil)} {
			slog.New(h).Info("x", "v", v, slog.Group("g", "v", v))
		}
		check(t, fmt.Sprintf("value %d in a log", i), out.String())
		if j, err := json.Marshal(v); err == nil {
			check(t, fmt.Sprintf("value %d as JSON", i), string(j))
		}
	}
	if s.Reveal() != marked {
		t.Error("Reveal must give the secret back")
	}
}

func check(t *testing.T, where, text string) {
	t.Helper()
	if strings.Contains(text, marked) || strings.Contains(text, fmt.Sprintf("%x", marked)) {
		t.Errorf("%s shows the secret: %s", where, text)
	}
}

func TestDraftsProveThemselves(t *testing.T) {
	expiry := time.Unix(1e9, 0)
	prefix := strings.Repeat("p", MaxPrefix)
	a, b := Draft(prefix, User, 7, expiry), Draft(prefix, User, 7, expiry)
	if a.Name == b.Name || a.Secret.Equal(b.Secret) {
		t.Fatal("two drafts are alike")
	}
	if a.Name != Name(prefix, a.Secret) || !Named(prefix, a.Name) {
		t.Errorf("name %q does not belong to its secret", a.Name)
	}
	if n := len(utf16.Encode([]rune(a.Name))); n > 50 {
		t.Errorf("name has %d units, balena takes 50", n)
	}
	if s := a.Secret.Reveal(); len(s) != 32 || !strings.ContainsAny(s, "abcdef") {
		t.Error("a secret must have 32 hex digits with a letter among them")
	}
	for _, foreign := range []string{"", "p", prefix, prefix + "-", prefix + "-xyz", a.Name + "0", "other" + a.Name} {
		if Named(prefix, foreign) {
			t.Errorf("%q passes for a name of ours", foreign)
		}
	}
}

func TestCheckPrefix(t *testing.T) {
	for prefix, good := range map[string]bool{"injector": true, "a.b_c-1": true, "": false, "-a": false, "a'b": false,
		"a b": false, "é": false, strings.Repeat("x", MaxPrefix): true, strings.Repeat("x", MaxPrefix+1): false} {
		if (CheckPrefix(prefix) == nil) != good {
			t.Errorf("prefix %q: good = %v", prefix, !good)
		}
	}
}

func TestClassOfOtherErrors(t *testing.T) {
	if c, wait := ClassOf(errors.New("x")); c != Unknown || wait != 0 {
		t.Errorf("got %v, %v", c, wait)
	}
	if Is(nil, Unknown) {
		t.Error("no error has a class")
	}
	if Class(99).String() != "unknown" || Wrong.String() != "wrong" || Unrevocable.String() != "unrevocable" {
		t.Error("names of classes")
	}
}
