package probe

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/balena-injector/injector/agent"
)

// at is a time to look at reports.
var at = time.Date(2030, 1, 2, 3, 4, 5, 0, time.UTC)

// trouble is a step that failed once, and will be tried again in a minute.
func trouble(step, err, fix string) agent.Trouble {
	return agent.Trouble{Step: step, Error: err, Failures: 1, Since: at, NextTry: at.Add(time.Minute), Fix: fix}
}

// good is a key that apps can rely on, and its name.
func good(name string, outputs ...string) KeyReport {
	return KeyReport{Name: name, Status: agent.Status{Phase: "running", Ready: true}, Outputs: outputs}
}

// bad is one that they cannot rely on.
func bad(name, phase, reason string, failing ...agent.Trouble) KeyReport {
	return KeyReport{Name: name, Status: agent.Status{Phase: phase, Reason: reason, Trouble: failing}}
}

func judged(keys ...KeyReport) Report {
	r := Report{State: Running, Ready: true, Reason: "something else", Fix: "nothing", Keys: keys}
	r.Judge()
	return r
}

// TestTheFirstKeyThatIsNotReadyCounts and what would help with it. A key that has not begun or is at its end does not
// blame what fails.
func TestTheFirstKeyThatIsNotReadyCounts(t *testing.T) {
	withCredential := func(k KeyReport) KeyReport {
		k.Credential = &Credential{Error: "file x is empty", Fix: "mend the file"}
		return k
	}
	for name, c := range map[string]struct {
		keys        []KeyReport
		ready       bool
		reason, fix string
	}{
		"no keys": {
			ready: true,
		},
		"all are ready": {
			keys:  []KeyReport{good("a"), good("b")},
			ready: true,
		},
		"one that fails and is ready": {
			keys:  []KeyReport{{Status: agent.Status{Phase: "running", Ready: true, Trouble: []agent.Trouble{trouble("x", "y", "z")}}}},
			ready: true,
		},
		"the only one": {
			keys:   []KeyReport{bad("", "running", "there is no key yet", trouble("mint the key", "503", "wait"))},
			reason: "there is no key yet",
			fix:    "wait",
		},
		"the second, and the third": {
			keys:   []KeyReport{good("a"), bad("b", "running", "why b"), bad("c", "running", "why c", trouble("x", "y", "of c"))},
			reason: "b: why b",
		},
		"the first trouble that can be helped": {
			keys: []KeyReport{withCredential(bad("", "running", "why", trouble("x", "y", ""), trouble("x", "y", "this"),
				trouble("x", "y", "that")))},
			reason: "why",
			fix:    "this",
		},
		"a credential": {
			keys:   []KeyReport{withCredential(bad("", "running", "why", trouble("x", "y", "")))},
			reason: "why",
			fix:    "mend the file",
		},
		"at its end": {
			keys:   []KeyReport{withCredential(bad("", "stopping", "it is being stopped", trouble("x", "y", "z")))},
			reason: "it is being stopped",
		},
	} {
		t.Run(name, func(t *testing.T) {
			if r := judged(c.keys...); r.Ready != c.ready || r.Reason != c.reason || r.Fix != c.fix {
				t.Errorf("ready %v, because %q, and %q helps; not %v, %q and %q", r.Ready, r.Reason, r.Fix, c.ready, c.reason, c.fix)
			}
		})
	}
}

// TestLineSaysAllInOneLine whatever lines a reason has.
func TestLineSaysAllInOneLine(t *testing.T) {
	failing := good("b")
	failing.Trouble = []agent.Trouble{trouble("extend the key", "503", "ask\nbalena"), trouble("x", "y", "z")}
	untold := good("")
	untold.Untold = []string{"reload: exit 1"}
	for want, r := range map[string]Report{
		"ready": judged(good("")),
		"ready, but b: it could not extend the key (503); the next try is in 1 min 0 s. What helps: ask balena": judged(good("a"), failing),
		"ready, but not notified of the key: reload: exit 1":                                                    judged(untold),
		"not ready: b: no key yet":                 judged(failing, bad("b", "running", "no\n\tkey  yet")),
		"not ready: no key yet. What helps: do so": judged(bad("", "running", "no key yet", trouble("x", "y", "do\nso"))),
	} {
		if got := r.Line(at); got != want {
			t.Errorf("it says %q, not %q", got, want)
		}
	}
}

// TestComplaintsSayNothingTwice the worst first: a failing step, the credential, then who was not told.
func TestComplaintsSayNothingTwice(t *testing.T) {
	k := good("deploy")
	k.Trouble = []agent.Trouble{trouble("extend the key", "503", ""), trouble("log in", "refused", "mend it")}
	k.Credential = &Credential{Error: "file x is empty", Fix: "fill it"}
	k.Untold = []string{"nginx: no such process", "the hook: exit 1"}
	want := []Complaint{
		{"it could not extend the key (503); the next try is in 1 min 0 s", ""},
		{"it could not log in (refused); the next try is in 1 min 0 s", "mend it"},
		{"the next login will fail: file x is empty", "fill it"},
		{"not notified of the key: nginx: no such process", ""},
		{"not notified of the key: the hook: exit 1", ""},
	}
	if got := k.Complaints(at); !reflect.DeepEqual(got, want) {
		t.Errorf("complaints are %q, not %q", got, want)
	}

	k.Credential.Error = "refused" // a step has failed with that
	if got, want := k.Complaints(at), []Complaint{want[0], want[1], want[3], want[4]}; !reflect.DeepEqual(got, want) {
		t.Errorf("complaints are %q, not %q", got, want)
	}
	k.Reason = "there is no key yet: it could not extend the key (503)"
	if got, want := k.Complaints(at), []Complaint{want[1], want[3], want[4]}; !reflect.DeepEqual(got, want) {
		t.Errorf("complaints are %q, not %q", got, want)
	}
	if got := good("").Complaints(at); len(got) != 0 {
		t.Errorf("complaints where nothing is wrong: %q", got)
	}
	for c, want := range map[Complaint]string{{"it fails", ""}: "it fails", {"it fails", "do so"}: "it fails. What helps: do so"} {
		if c.String() != want {
			t.Errorf("it is %q, not %q", c, want)
		}
	}
}

// TestForToldFromAnothersOutputs answers who asks about outputs that this process does not keep. The report itself stays
// as it is.
func TestForToldFromAnothersOutputs(t *testing.T) {
	running := judged(good("a", "/secrets/a"), good("b", "/secrets/b", "/secrets/b.env"))
	rest := Report{State: Crashed, Reason: "it was killed", Keys: []KeyReport{{Outputs: []string{"/secrets/a"}}}}
	without := judged(good(""))
	for name, c := range map[string]struct {
		r       Report
		outputs []string
		state   State
		reason  string
		other   bool // it is not what it was
	}{
		"about all": {
			r:     running,
			state: Running,
		},
		"about some": {
			r:       running,
			outputs: []string{"/secrets/b.env", "/secrets/a"},
			state:   Running,
		},
		"about another": {
			r:       running,
			outputs: []string{"/secrets/a", "/secrets/c", "/secrets/d"},
			state:   Another,
			reason:  "the injector that uses this state directory keeps /secrets/a, /secrets/b, /secrets/b.env, and not /secrets/c",
			other:   true,
		},
		"of one without outputs": {
			r:       without,
			outputs: []string{"/secrets/c"},
			state:   Running,
		},
		"of one that ended": {
			r:       rest,
			outputs: []string{"/secrets/c", "/secrets/d"},
			state:   Crashed,
			reason:  "it was killed; it kept /secrets/a, and not /secrets/c",
			other:   true,
		},
		"of one that ended, about its own": {
			r:       rest,
			outputs: []string{"/secrets/a"},
			state:   Crashed,
			reason:  "it was killed",
		},
	} {
		t.Run(name, func(t *testing.T) {
			was := c.r
			got := c.r.For(c.outputs)
			if got.State != c.state || got.Reason != c.reason {
				t.Errorf("it is %s, because %q; not %s, %q", got.State, got.Reason, c.state, c.reason)
			}
			if !c.other && !reflect.DeepEqual(got, was) {
				t.Errorf("it is %+v, and was %+v", got, was)
			}
			if got.State == Another && (got.Ready || got.Fix != OneEach) {
				t.Errorf("ready %v, and %q helps", got.Ready, got.Fix)
			}
			if !reflect.DeepEqual(c.r, was) {
				t.Error("it has changed the report itself")
			}
		})
	}
	if line := running.For([]string{"/secrets/c"}).Line(at); !strings.Contains(line, "an INJECTOR_STATE_DIR of its own") {
		t.Errorf("its line is %q", line)
	}
}

// TestAWholeReportHasNoNull in its JSON, and leaves the report that it was made from alone.
func TestAWholeReportHasNoNull(t *testing.T) {
	for _, r := range []Report{{}, {Keys: []KeyReport{{Name: "deploy"}, {Outputs: []string{"/secrets/x"}}}}} {
		raw, err := json.Marshal(r.Whole())
		if err != nil || strings.Contains(string(raw), "null") {
			t.Errorf("%v %s", err, raw)
		}
		if len(r.Keys) > 0 && r.Keys[0].Outputs != nil {
			t.Error("the report itself was changed")
		}
	}
}
