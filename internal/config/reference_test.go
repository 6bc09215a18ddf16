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
		if v.Name == "" || v.Does == "" || v.Default != "" && v.Usual != "" {
			t.Errorf("%+v", v)
		}
		listed = append(listed, v.Names()...)
		if found, _, ok := Describe(v.Name); !ok || found.Does != v.Does {
			t.Errorf("%s is described as %+v", v.Name, found)
		}
	}
	slices.Sort(listed)
	if once := slices.Compact(slices.Clone(listed)); len(once) != len(listed) {
		t.Errorf("one is listed twice: %q", listed)
	}
	known := names(nil)
	for _, name := range known {
		if !slices.Contains(listed, name) {
			t.Errorf("%s is read, and not listed", name)
		}
	}
	for _, name := range listed {
		if !slices.Contains(known, name) {
			t.Errorf("%s is listed, and not read", name)
		}
		if s, err := Read(with("INJECTOR_CA_FILE=", name+"=x"), Options{WithoutFiles: true}); err != nil &&
			strings.Contains(err.Error(), name+" is not a variable that the injector knows") {
			t.Errorf("%s is listed, and not read: %+v", name, s)
		}
	}
}

// TestTheOrderOfTheReference has first what everybody needs, and the credentials by their names.
func TestTheOrderOfTheReference(t *testing.T) {
	if list := Variables(); list[0].Name != "BALENA_USERNAME" || list[1].Name != "BALENA_PASSWORD" {
		t.Errorf("%s and %s come first", list[0].Name, list[1].Name)
	}
	for name, want := range map[string][]string{
		"BALENA_PASSWORD":     {"BALENA_PASSWORD", "BALENA_PASSWORD_FILE", "INJECTOR_PASSWORD", "INJECTOR_PASSWORD_FILE"},
		"BALENA_API_KEY_FILE": {"BALENA_API_KEY_FILE", "INJECTOR_API_KEY_FILE"},
		"BALENA_USERNAME":     {"BALENA_USERNAME", "INJECTOR_USERNAME"},
		"INJECTOR_TTL":        {"INJECTOR_TTL"},
	} {
		if v, _, _ := Describe(name); !slices.Equal(v.Names(), want) {
			t.Errorf("%s is called %q, not %q", name, v.Names(), want)
		}
	}
	if v, _, _ := Describe("INJECTOR_PASSWORD_FILE"); v.Name != "BALENA_PASSWORD" || v.OfKey("deploy") != "INJECTOR_DEPLOY_PASSWORD" {
		t.Errorf("%+v, %s", v, v.OfKey("deploy"))
	}
	if _, like, ok := Describe("INJECTOR_TLL"); ok || like != "INJECTOR_TTL" {
		t.Errorf("INJECTOR_TLL is like %q", like)
	}
	want := []string{"BALENA_PASSWORD", "BALENA_TOTP_SECRET", "BALENA_SESSION_TOKEN", "BALENA_API_KEY"}
	if got := Credentials(); !slices.Equal(got, want) {
		t.Errorf("credentials: %q", got)
	}
}
