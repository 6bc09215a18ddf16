package config

import (
	"slices"
	"strings"
	"testing"
)

// TestTheReferenceListsAllThatIsRead each variable once, with what it does and one default at most.
func TestTheReferenceListsAllThatIsRead(t *testing.T) {
	var listed []string
	for _, v := range Variables() {
		if v.Does == "" || v.Default != "" && v.Usual != "" {
			t.Errorf("%+v", v)
		}
		listed = append(listed, v.Name)
	}
	credentials := Credentials()
	for _, c := range credentials {
		if c.Does == "" || c.FileOnly != (c.Name == "BALENA_API_KEY") {
			t.Errorf("%+v", c)
		}
		if !c.FileOnly {
			listed = append(listed, c.Name)
		}
		listed = append(listed, c.Name+"_FILE")
	}
	if len(credentials) != 4 {
		t.Errorf("%d credentials", len(credentials))
	}
	slices.Sort(listed)
	if once := slices.Compact(slices.Clone(listed)); len(once) != len(listed) {
		t.Errorf("one is listed twice: %q", listed)
	}
	// What is known without being listed is a credential by its other name.
	for _, name := range names(nil) {
		other := "BALENA_" + strings.TrimPrefix(name, "INJECTOR_")
		if !slices.Contains(listed, name) && (!slices.Contains(listed, other) || other == "BALENA_API_URL") {
			t.Errorf("%s is read, and not listed", name)
		}
	}
	for _, name := range listed {
		if s, err := Read(with("INJECTOR_CA_FILE=", name+"=x"), Options{WithoutFiles: true}); err != nil &&
			strings.Contains(err.Error(), name+" is not a variable that the injector knows") {
			t.Errorf("%s is listed, and not read: %+v", name, s)
		}
	}
}
