package config

// Variable describes a variable for people.
type Variable struct {
	Name    string
	Default string // empty: none, or Usual says it
	Usual   string // the default in words, where it depends on something
	Does    string
}

// Variables lists what can be set, but for the credentials.
func Variables() []Variable {
	var list []Variable
	for f := range allFields() {
		name := f.Tag.Get("env")
		list = append(list, Variable{name, f.Tag.Get("default"), f.Tag.Get("usual"), descriptions[name]})
	}
	return list
}

// Credentials lists the credentials, each of which may be given as NAME or as NAME_FILE; FileOnly as a file only.
func Credentials() []Credential {
	var list []Credential
	for _, s := range secretVariables {
		list = append(list, Credential{s.name, s.desc, s.name == userKeyVariable})
	}
	return list
}

// Credential describes a variable that holds a credential, or with _FILE after its name the path of a file that does.
type Credential struct {
	Name, Does string
	FileOnly   bool
}
