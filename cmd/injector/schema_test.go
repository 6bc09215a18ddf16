package main

import (
	"encoding/json"
	"go/ast"
	"go/parser"
	"go/token"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/balena-injector/injector/internal/probe"
	"github.com/balena-injector/injector/internal/words"
)

const schemaFile = "../../docs/status.schema.json"

// TestStatusSchema compares the schema of `status --json` with the types that it is written from.
func TestStatusSchema(t *testing.T) {
	s := schemer{t, fieldComments(t, "../../agent/status.go", "../../internal/probe/report.go")}
	root := s.object(reflect.TypeFor[probe.Report]())
	root["$schema"] = "https://json-schema.org/draft/2020-12/schema"
	root["title"] = "injector status --json"
	root["description"] = "What an injector holds, what fails and what would help. Points in time are RFC 3339, durations are numbers of " +
		"seconds whose names end in _seconds. A property that is not there is not known, or means nothing in this state. New ones " +
		"may be added."
	text, err := json.MarshalIndent(root, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	comparePage(t, schemaFile, string(text)+"\n")
}

// schemer makes a schema of types and the comments on their fields, by "Type.Field".
type schemer struct {
	t        *testing.T
	comments map[string]string
}

type schema map[string]any

func (s schemer) object(typ reflect.Type) schema {
	properties, required := schema{}, []string{}
	s.fields(typ, properties, &required)
	return schema{"type": "object", "properties": properties, "required": required}
}

func (s schemer) fields(typ reflect.Type, properties schema, required *[]string) {
	for f := range typ.Fields() {
		tag := f.Tag.Get("json")
		switch {
		case f.Anonymous && tag == "":
			s.fields(f.Type, properties, required)
			continue
		case !f.IsExported():
			continue
		}
		name, options, _ := strings.Cut(tag, ",")
		property := s.of(f.Type)
		if text := s.comments[typ.Name()+"."+f.Name]; text != "" {
			if options != "" {
				text = zeroes.Replace(text)
			}
			property["description"] = text
		} else if f.Type.Kind() != reflect.Struct {
			s.t.Errorf("%s.%s has no comment", typ.Name(), f.Name)
		}
		properties[name] = property
		if options == "" {
			*required = append(*required, name)
		}
	}
}

// zeroes are what a comment calls what is left out of the JSON.
var zeroes = strings.NewReplacer("zero:", "absent:", "empty:", "absent:", "nil:", "absent:", "0 or absent:", "absent:", "0:", "absent:")

func (s schemer) of(typ reflect.Type) schema {
	switch typ {
	case reflect.TypeFor[time.Time]():
		return schema{"type": "string", "format": "date-time"}
	case reflect.TypeFor[words.Seconds]():
		return schema{"type": "number"}
	}
	switch typ.Kind() {
	case reflect.Pointer:
		return s.of(typ.Elem())
	case reflect.Slice:
		return schema{"type": "array", "items": s.of(typ.Elem())}
	case reflect.Map:
		return schema{"type": "object", "additionalProperties": s.of(typ.Elem())}
	case reflect.Struct:
		return s.object(typ)
	case reflect.String:
		return schema{"type": "string"}
	case reflect.Bool:
		return schema{"type": "boolean"}
	case reflect.Int, reflect.Int64:
		return schema{"type": "integer"}
	}
	s.t.Fatalf("%v has no shape", typ)
	return nil
}

// fieldComments are the comments on the fields of the types in those files.
func fieldComments(t *testing.T, files ...string) map[string]string {
	t.Helper()
	comments := map[string]string{}
	for _, path := range files {
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.ParseComments)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(file, func(n ast.Node) bool {
			spec, ok := n.(*ast.TypeSpec)
			if !ok {
				return true
			}
			if typ, ok := spec.Type.(*ast.StructType); ok {
				for _, f := range typ.Fields.List {
					for _, name := range f.Names {
						comments[spec.Name.Name+"."+name.Name] = strings.Join(strings.Fields(f.Doc.Text()+" "+f.Comment.Text()), " ")
					}
				}
			}
			return false
		})
	}
	return comments
}
