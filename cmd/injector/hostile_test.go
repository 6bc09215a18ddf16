package main

import (
	"bytes"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/balena-injector/injector/balena/balenatest"
	"github.com/balena-injector/injector/internal/probe"
)

// mounted is a stage whose output and state lie on a tmpfs of its own, of that size; mounting takes
// root.
func mounted(t *testing.T, size string) (s *stage, volume string) {
	t.Helper()
	s = newStage(t, balenatest.Options{})
	volume = filepath.Join(s.dir, "volume")
	mountTmpfs(t, volume, size)
	s.set("INJECTOR_OUTPUT", filepath.Join(volume, "balena-token"), "INJECTOR_STATE_DIR", filepath.Join(volume, ".injector"),
		"INJECTOR_CHECK_INTERVAL", "1s", "INJECTOR_TTL", "10s", "INJECTOR_OVERLAP", "1s")
	return s, volume
}

func mountTmpfs(t *testing.T, dir, size string) {
	t.Helper()
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "mode=0700,size="+size); err != nil {
		t.Fatalf("mounting takes root: %v", err)
	}
	t.Cleanup(func() { _ = syscall.Unmount(dir, syscall.MNT_DETACH) })
}

// fill writes until nothing more fits.
func fill(t *testing.T, path string) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	for err == nil {
		_, err = f.Write(bytes.Repeat([]byte("x"), 512))
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
}

func (s *stage) isReady() bool {
	code, _, err := probe.Ask(s.t.Context(), s.stateDir(), "/readyz", 0)
	return err == nil && code == http.StatusOK
}

func TestAFullVolume(t *testing.T) {
	t.Parallel()
	s, volume := mounted(t, "64k")
	output := s.env["INJECTOR_OUTPUT"]
	p := s.start("run")
	s.ready()
	first, _ := os.ReadFile(output)
	fill(t, filepath.Join(volume, "somebody's log"))

	s.eventually("the extension", func() bool { return s.server.Count("extend") > 0 })
	s.eventually("what is wrong", func() bool {
		fill(t, filepath.Join(volume, "somebody's log")) // what the injector was replacing just then has left room
		return strings.Contains(p.stderr.String(), "could not write the journal")
	})
	contains(t, p.stderr.String(), "journal.json", "the file system is full")

	s.server.DeleteKey(s.server.Live()[0].ID) // another is due, and has no room
	s.eventually("not ready", func() bool { return !s.isReady() })
	if now, _ := os.ReadFile(output); !bytes.Equal(now, first) || s.server.Count("mint") != 1 {
		t.Errorf("the old file has changed, or a key was minted (%d) that could not be written down", s.server.Count("mint"))
	}
	if err := os.Remove(filepath.Join(volume, "somebody's log")); err != nil {
		t.Fatal(err)
	}
	s.ready()
	if now, _ := os.ReadFile(output); bytes.Equal(now, first) || !s.server.Accepts(string(now)) {
		t.Error("the app reads no good key")
	}
	p.stop()
}

func TestAVolumeThatTurnsReadOnly(t *testing.T) {
	t.Parallel()
	s, volume := mounted(t, "64k")
	s.set("INJECTOR_STATE_DIR", filepath.Join(s.dir, "state")) // with the lock in it, the volume would be busy
	output := s.env["INJECTOR_OUTPUT"]
	p := s.start("run")
	s.ready()
	first, _ := os.ReadFile(output)
	if err := syscall.Mount("", volume, "", syscall.MS_REMOUNT|syscall.MS_RDONLY, ""); err != nil {
		t.Fatal(err)
	}
	extended := s.server.Count("extend")
	s.eventually("an extension all the same", func() bool { return s.server.Count("extend") > extended })
	s.eventually("what is wrong", func() bool { return strings.Contains(p.stderr.String(), "read-only") })
	s.server.DeleteKey(s.server.Live()[0].ID)
	s.eventually("not ready", func() bool { return !s.isReady() })
	if now, _ := os.ReadFile(output); !bytes.Equal(now, first) || s.server.Count("mint") != 1 {
		t.Error("a key was minted that cannot be published")
	}
	if err := syscall.Mount("", volume, "", syscall.MS_REMOUNT, ""); err != nil {
		t.Fatal(err)
	}
	s.ready()
	p.stop()
}

func TestAVolumeThatIsReadOnlyAtTheStop(t *testing.T) {
	t.Parallel()
	s, volume := mounted(t, "64k")
	s.set("INJECTOR_STATE_DIR", filepath.Join(s.dir, "state"))
	p := s.start("run")
	s.ready()
	if err := syscall.Mount("", volume, "", syscall.MS_REMOUNT|syscall.MS_RDONLY, ""); err != nil {
		t.Fatal(err)
	}
	p.signal(syscall.SIGTERM)
	if code := p.wait(8 * time.Second); code != int(exitFailed) {
		t.Errorf("exit %d", code)
	}
	contains(t, p.stderr.String(), "could not be removed", s.env["INJECTOR_OUTPUT"])
	s.wantLive(0) // the file is left, and worth nothing
}

// TestAVolumeThatIsMountedAgain takes the state directory away as well: what is minted afterwards
// must be on record where the next start looks.
func TestAVolumeThatIsMountedAgain(t *testing.T) {
	t.Parallel()
	s, volume := mounted(t, "64k")
	s.set("INJECTOR_TTL", "10m")
	p := s.start("run")
	s.ready()
	if err := syscall.Unmount(volume, syscall.MNT_DETACH); err != nil {
		t.Fatal(err)
	}
	mountTmpfs(t, volume, "64k")
	s.eventually("the file", func() bool {
		token, err := os.ReadFile(s.env["INJECTOR_OUTPUT"])
		return err == nil && s.server.Accepts(string(token))
	})
	s.newKeyOnRecord(p)
}

func TestAStateDirectoryThatIsRemoved(t *testing.T) {
	t.Parallel()
	s, volume := mounted(t, "64k")
	s.set("INJECTOR_TTL", "10m")
	p := s.start("run")
	s.ready()
	if err := os.RemoveAll(filepath.Join(volume, ".injector")); err != nil {
		t.Fatal(err)
	}
	s.newKeyOnRecord(p)
}

// newKeyOnRecord lets an agent make another key, kills it, and starts it again.
func (s *stage) newKeyOnRecord(p *proc) {
	s.t.Helper()
	s.server.DeleteKey(s.server.Live()[0].ID)
	s.eventually("another key", func() bool { return s.server.Count("mint") == 2 })
	s.ready()
	contains(s.t, p.stderr.String(), "the journal is written there")
	p.signal(syscall.SIGKILL)
	p.wait(time.Second)
	p = s.start("run")
	s.ready()
	if n := s.server.Count("mint"); n != 2 {
		s.t.Errorf("%d mints", n)
	}
	p.stop()
}

func TestAReadOnlyVolumeIsFoundOutBeforeAMint(t *testing.T) {
	t.Parallel()
	s, volume := mounted(t, "64k")
	if err := syscall.Mount("", volume, "", syscall.MS_REMOUNT|syscall.MS_RDONLY, ""); err != nil {
		t.Fatal(err)
	}
	contains(t, s.want(1, "run"), "read-only", s.env["INJECTOR_OUTPUT"])
	if n := s.server.Count(""); n != 0 {
		t.Errorf("%d requests were sent", n)
	}
}

// TestASingleFileMount is what `-v file:/secrets/balena-token` or a subPath makes.
func TestASingleFileMount(t *testing.T) {
	t.Parallel()
	s := newStage(t, balenatest.Options{})
	source := filepath.Join(s.dir, "source")
	for _, path := range []string{source, s.token()} {
		if err := os.WriteFile(path, nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := syscall.Mount(source, s.token(), "", syscall.MS_BIND, ""); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = syscall.Unmount(s.token(), syscall.MNT_DETACH) })
	contains(t, s.want(1, "run"), "mount of its own", "mount its directory instead", s.token())
	if n := s.server.Count(""); n != 0 {
		t.Errorf("%d requests were sent", n)
	}
}

// TestAPasswordFileThatIsTruncatedAndWritten is what an editor or `>` does: what is in it for a
// moment is never tried.
func TestAPasswordFileThatIsTruncatedAndWritten(t *testing.T) {
	t.Parallel()
	s := newStage(t, balenatest.Options{})
	u := s.server.DefaultUser()
	file := filepath.Join(s.dir, "password")
	writeFile(t, file, "wrong")
	delete(s.env, "BALENA_PASSWORD")
	s.set("BALENA_PASSWORD_FILE", file)
	p := s.start("run")
	s.eventually("the refusal", func() bool { return strings.Contains(p.stderr.String(), "not accepted") })
	refused := s.server.Count("login")
	f, err := os.OpenFile(file, os.O_WRONLY|os.O_TRUNC, 0)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []byte(u.Password) {
		if _, err := f.Write([]byte{c}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(5 * time.Millisecond) // a slow writer
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	s.ready()
	if n := s.server.Count("login") - refused; n != 1 {
		t.Errorf("%d logins for one correction", n)
	}
	p.stop()
}

// TestAVolumeInMemoryThatIsTakenAway leaves a directory on a disk in the place of the output's tmpfs: nothing is written
// there, and the injector goes on when the tmpfs is back.
func TestAVolumeInMemoryThatIsTakenAway(t *testing.T) {
	t.Parallel()
	s := newStage(t, balenatest.Options{})
	volume := filepath.Join(t.TempDir(), "volume")
	mountTmpfs(t, volume, "64k")
	output := filepath.Join(volume, "balena-token")
	s.set("INJECTOR_OUTPUT", output, "INJECTOR_STATE_DIR", filepath.Join(s.dir, "state"), "INJECTOR_CHECK_INTERVAL", "1s")
	p := s.start("run")
	s.ready()
	if err := syscall.Unmount(volume, syscall.MNT_DETACH); err != nil {
		t.Fatal(err)
	}
	s.eventually("not ready", func() bool { return !s.isReady() })
	contains(t, s.want(1, "healthcheck"), "not in memory")
	s.server.DeleteKey(s.server.Live()[0].ID) // another one is due, and has no place
	s.eventually("the death", func() bool { return strings.Contains(p.stderr.String(), "the key is dead") })
	if list, err := os.ReadDir(volume); err != nil || len(list) > 0 {
		t.Errorf("%v is on a disk: %v", list, err)
	}
	mountTmpfs(t, volume, "64k")
	s.ready()
	p.stop()
}
