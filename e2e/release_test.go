package e2e

import (
	"debug/buildinfo"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// releases makes a release of the working tree twice, in two places.
func releases(t *testing.T) (one, two string) {
	t.Helper()
	var made []string
	for range 2 {
		source, output := sourceIn(t), t.TempDir()
		cmd := exec.Command("go", "run", ".", "-source", source, "-version", "0.1.0", "-output", output)
		cmd.Dir = filepath.Join(source, "release")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		made = append(made, output)
	}
	return made[0], made[1]
}

// sourceIn is a copy of the working tree that is one commit.
func sourceIn(t *testing.T) string {
	t.Helper()
	dir := copyOfTheProject(t)
	commit(t, dir)
	return dir
}

// commit makes a repository of a directory, always the same of the same files.
func commit(t *testing.T, dir string) {
	t.Helper()
	for _, args := range [][]string{{"init", "-q"}, {"add", "-A"}, {"commit", "-q", "-m", "all"}, {"tag", "v0.1.0"}} {
		cmd := exec.Command("git", args...)
		cmd.Dir = dir
		cmd.Env = append(os.Environ(), "GIT_AUTHOR_DATE=2026-01-02T03:04:05Z", "GIT_COMMITTER_DATE=2026-01-02T03:04:05Z",
			"GIT_AUTHOR_NAME=t", "GIT_AUTHOR_EMAIL=t@example.com", "GIT_COMMITTER_NAME=t", "GIT_COMMITTER_EMAIL=t@example.com")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatal(err, string(out))
		}
	}
}

// TestRelease makes a release twice: the bytes are the same. What is in it is what it says, and runs on all platforms.
func TestRelease(t *testing.T) {
	t.Parallel()
	one, two := releases(t)
	sums, err := os.ReadFile(filepath.Join(one, "SHA256SUMS"))
	if err != nil {
		t.Fatal(err)
	}
	again, err := os.ReadFile(filepath.Join(two, "SHA256SUMS"))
	if err != nil || string(sums) != string(again) {
		t.Errorf("the second release is another one (%v):\n%s\n%s", err, sums, again)
	}
	check := exec.Command("sha256sum", "-c", "--quiet", "SHA256SUMS")
	check.Dir = one
	if out, err := check.CombinedOutput(); err != nil {
		t.Error(err, string(out))
	}
	t.Logf("%d files, the same twice:\n%s", strings.Count(string(sums), "\n"), sums)
	for _, on := range []string{"linux_amd64", "linux_arm64", "linux_armv7", "linux_armv6", "darwin_amd64", "darwin_arm64"} {
		t.Run(on, func(t *testing.T) { archiveIsWhole(t, one, on) })
	}
}

func archiveIsWhole(t *testing.T, dist, on string) {
	dir := t.TempDir()
	sh(t, "tar", "-xzf", filepath.Join(dist, "injector_0.1.0_"+on+".tar.gz"), "-C", dir)
	for _, file := range []string{"injector", "injector.1", "LICENSE", "CHANGELOG.md", "completions/injector.bash", "completions/_injector",
		"completions/injector.fish"} {
		if info, err := os.Stat(filepath.Join(dir, file)); err != nil || info.Size() == 0 {
			t.Errorf("%s is missing or empty: %v", file, err)
		}
	}
	binary := filepath.Join(dir, "injector")
	if info, err := os.Stat(binary); err == nil && info.Size() > 10_500_000 && strings.HasPrefix(on, "linux") {
		t.Errorf("%d bytes", info.Size())
	}
	info, err := buildinfo.ReadFile(binary)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := os.ReadFile(filepath.Join(dist, "injector_0.1.0_"+on+".cdx.json"))
	if err != nil {
		t.Fatal(err)
	}
	var bom struct {
		BomFormat string
		Metadata  struct {
			Component struct{ Name, Version string }
		}
		Components []struct{ Name, Version, PURL string }
	}
	if err := json.Unmarshal(raw, &bom); err != nil {
		t.Fatal(err)
	}
	want := []string{"std@" + strings.TrimPrefix(info.GoVersion, "go")}
	for _, m := range info.Deps {
		want = append(want, m.Path+"@"+m.Version)
	}
	var got []string
	for _, c := range bom.Components {
		got = append(got, c.Name+"@"+c.Version)
		if c.PURL != "pkg:golang/"+c.Name+"@"+c.Version+"?type=module" {
			t.Errorf("package URL %s", c.PURL)
		}
	}
	if bom.BomFormat != "CycloneDX" || bom.Metadata.Component.Version != "0.1.0" || !slices.Equal(got, want) {
		t.Errorf("the list of what is in it is %q, and go version -m says %q", got, want)
	}
}

// TestReleasedImages loads the image for each platform, which runs, emulated where need be, and is configured as the one that
// the Dockerfile makes.
func TestReleasedImages(t *testing.T) {
	t.Parallel()
	engine(t)
	dist, source := t.TempDir(), sourceIn(t)
	cmd := exec.Command("go", "run", ".", "-source", source, "-version", "0.1.0", "-output", dist)
	cmd.Dir = filepath.Join(source, "release")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	const formats = "{{json .Config.Entrypoint}} {{json .Config.Cmd}} {{.Config.User}} {{.Config.StopSignal}} " +
		`{{json .Config.Healthcheck}} {{index .Config.Labels "org.opencontainers.image.title"}} ` +
		`{{index .Config.Labels "org.opencontainers.image.description"}} ` +
		`{{index .Config.Labels "org.opencontainers.image.source"}} {{index .Config.Labels "org.opencontainers.image.licenses"}}`
	for _, c := range []struct{ on, platform, emulator string }{
		{"linux_amd64", "linux/amd64", ""},
		{"linux_arm64", "linux/arm64", "qemu-aarch64-static"},
		{"linux_armv7", "linux/arm/v7", "qemu-arm-static"},
		{"linux_armv6", "linux/arm/v6", "qemu-arm-static"},
	} {
		t.Run(c.on, func(t *testing.T) {
			loaded := sh(t, "docker", "load", "-q", "-i", filepath.Join(dist, "injector_0.1.0_image_"+c.on+".tar"))
			if !strings.HasSuffix(loaded, "balena-token-injector:0.1.0") {
				t.Error(loaded)
			}
			tag := image + "-release:" + c.on
			sh(t, "docker", "tag", "balena-token-injector:0.1.0", tag)
			revision := sh(t, "git", "-C", source, "rev-parse", "HEAD")
			labels := sh(t, "docker", "image", "inspect", "-f", `{{.Os}}/{{.Architecture}} `+
				`{{index .Config.Labels "org.opencontainers.image.version"}} {{index .Config.Labels "org.opencontainers.image.revision"}} `+
				`{{index .Config.Labels "org.opencontainers.image.created"}}`, tag)
			system := strings.Join(strings.Split(c.platform, "/")[:2], "/")
			if want := system + " 0.1.0 " + revision + " 2026-01-02T03:04:05Z"; labels != want {
				t.Errorf("labels %s, not %s", labels, want)
			}
			if ours, theirs := sh(t, "docker", "image", "inspect", "-f", formats, tag),
				sh(t, "docker", "image", "inspect", "-f", formats, image); ours != theirs {
				t.Errorf("the release's image is\n%s\nand the Dockerfile's\n%s", ours, theirs)
			}
			said := runImage(t, tag, c.platform, c.emulator)
			if want := fmt.Sprintf("injector 0.1.0 (revision %s, ", revision); !strings.HasPrefix(said, want) {
				t.Errorf("it says %q, not %q", said, want)
			}
			t.Log(c.platform, said)
		})
	}
}

// runImage lets an image print its version, as an engine with emulators does.
func runImage(t *testing.T, tag, platform, emulator string) string {
	t.Helper()
	args := []string{"run", "--rm", "--network=none", "--read-only", "--cap-drop=ALL", "--platform", platform}
	if emulator == "" {
		return sh(t, "docker", append(args, tag, "version")...)
	}
	path, err := exec.LookPath(emulator)
	if err != nil {
		if os.Getenv("CI_HAS_ALL") != "" {
			t.Fatal(err)
		}
		t.Skipf("LEFT OUT: the image for %s was not run; qemu-user-static does that", platform)
	}
	return sh(t, "docker", append(args, "-v", path+":/emulator:ro", "--entrypoint", "/emulator", tag, "/injector", "version")...)
}
