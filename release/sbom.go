package main

import (
	"debug/buildinfo"
	"fmt"
	"os"
	"runtime/debug"
	"strings"
	"time"

	cdx "github.com/CycloneDX/cyclonedx-go"
)

// writeSBOM writes PROGRAM_VERSION_PLATFORM.cdx.json: the modules that are compiled into a binary, as the binary itself names
// them (`go version -m`), and Go's own library.
func (r *release) writeSBOM(p program, on platform, binary string) error {
	info, err := buildinfo.ReadFile(binary)
	if err != nil {
		return err
	}
	bom := cdx.NewBOM()
	bom.Metadata = &cdx.Metadata{
		Timestamp: r.created.Format(time.RFC3339),
		Component: &cdx.Component{
			Type:       cdx.ComponentTypeApplication,
			BOMRef:     "pkg:golang/" + info.Main.Path + "@" + r.version,
			Name:       p.name,
			Version:    r.version,
			PackageURL: "pkg:golang/" + info.Main.Path + "@v" + r.version + "?type=module",
			Licenses:   &cdx.Licenses{{License: &cdx.License{ID: "Apache-2.0"}}},
			Properties: &[]cdx.Property{{Name: "revision", Value: r.revision}, {Name: "platform", Value: on.name()}},
		},
	}
	goes := strings.TrimPrefix(info.GoVersion, "go")
	components := []cdx.Component{{Type: cdx.ComponentTypeLibrary, BOMRef: "pkg:golang/std@" + goes, Name: "std", Version: goes,
		PackageURL: "pkg:golang/std@" + goes + "?type=module"}}
	for _, m := range info.Deps {
		components = append(components, component(m))
	}
	bom.Components = &components
	dependsOn := make([]string, 0, len(components))
	for _, c := range components {
		dependsOn = append(dependsOn, c.BOMRef)
	}
	bom.Dependencies = &[]cdx.Dependency{{Ref: bom.Metadata.Component.BOMRef, Dependencies: &dependsOn}}
	out, err := os.Create(r.file(p, on.name()+".cdx.json"))
	if err != nil {
		return err
	}
	if err := cdx.NewBOMEncoder(out, cdx.BOMFileFormatJSON).SetPretty(true).Encode(bom); err != nil {
		return fmt.Errorf("write the SBOM: %w", err)
	}
	return out.Close()
}

func component(m *debug.Module) cdx.Component {
	if m.Replace != nil {
		m = m.Replace
	}
	url := "pkg:golang/" + m.Path + "@" + m.Version
	c := cdx.Component{Type: cdx.ComponentTypeLibrary, BOMRef: url, Name: m.Path, Version: m.Version, PackageURL: url + "?type=module"}
	if m.Sum != "" {
		c.Properties = &[]cdx.Property{{Name: "go:sum", Value: m.Sum}}
	}
	return c
}
