package words

import "testing"

// TestDistanceCountsLetters that are changed, added or removed.
func TestDistanceCountsLetters(t *testing.T) {
	for _, c := range []struct {
		a, b string
		want int
	}{
		{"", "", 0},
		{"", "TTL", 3},
		{"TTL", "TTL", 0},
		{"TTTL", "TTL", 1},
		{"TTL", "TTLS", 1},
		{"TTL", "TSL", 1},
		{"API_ULR", "API_URL", 2},
		{"kitten", "sitting", 3},
		{"flaw", "lawn", 2},
		{"abc", "xyz", 3},
	} {
		if got := Distance(c.a, c.b); got != c.want {
			t.Errorf("%q is %d letters from %q, not %d", c.a, got, c.b, c.want)
		}
	}
}

// TestNoDetourIsShorter than the distance, which is the same both ways. The words are all that two letters make.
func TestNoDetourIsShorter(t *testing.T) {
	all := []string{""}
	for n, i := 0, 0; n < 4; n++ {
		for end := len(all); i < end; i++ {
			all = append(all, all[i]+"a", all[i]+"b")
		}
	}
	d := make([][]int, len(all))
	for i, a := range all {
		for _, b := range all {
			d[i] = append(d[i], Distance(a, b))
		}
	}
	for i, a := range all {
		for j, b := range all {
			if d[i][j] != d[j][i] || (d[i][j] == 0) != (a == b) || d[i][j] > max(len(a), len(b)) {
				t.Errorf("from %q to %q: %d, and back: %d", a, b, d[i][j], d[j][i])
			}
			for k, c := range all {
				if d[i][j] > d[i][k]+d[k][j] {
					t.Errorf("from %q to %q: %d, and by %q: %d", a, b, d[i][j], c, d[i][k]+d[k][j])
				}
			}
		}
	}
}

// TestNearestFindsWhatWasMeant for a typing mistake or two, and for a long name that was not written to its end. What is
// nothing like any candidate gets none.
func TestNearestFindsWhatWasMeant(t *testing.T) {
	known := []string{"INJECTOR_TTL", "INJECTOR_MAX_TTL", "BALENA_USERNAME", "BALENA_PASSWORD", "BALENA_PASSWORD_FILE"}
	for name, want := range map[string]string{
		"INJECTOR_TTL":        "INJECTOR_TTL",
		"INJECTOR_TTTL":       "INJECTOR_TTL",
		"INJECTOR_TLT":        "INJECTOR_TTL",
		"INJECTOR_MAXTTL":     "INJECTOR_MAX_TTL",
		"BALENA_PASWORD_FILE": "BALENA_PASSWORD_FILE",
		"BALENA_PASSWROD":     "BALENA_PASSWORD",
		"BALENA_USER":         "BALENA_USERNAME",
		"BALENA_U":            "BALENA_USERNAME",
		"BALENA_":             "", // too short to go on
		"INJECTOR_OUTPUT":     "",
		"PATH":                "",
		"":                    "",
	} {
		if got := Nearest(name, known); got != want {
			t.Errorf("%q is taken for %q, not %q", name, got, want)
		}
	}
	if got := Nearest("INJECTOR_TTL", nil); got != "" {
		t.Errorf("%q is found where nothing is", got)
	}
	if got := Nearest("tost", []string{"text", "toast", "tasty"}); got != "toast" {
		t.Errorf("%q is taken, and another is nearer", got)
	}
	if got := Nearest("jsno", []string{"raw", "dotenv", "json", "netrc"}); got != "json" {
		t.Errorf("%q is taken for jsno", got)
	}
}
