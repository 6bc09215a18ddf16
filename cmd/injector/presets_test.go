package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/balena-injector/injector/balena/balenatest"
	"github.com/balena-injector/injector/render"
)

// ask is the end of a Python program that has read a token: it asks who that is.
const ask = `
import urllib.request
request = urllib.request.Request(url + "/actor/v1/whoami", headers={"Authorization": "Bearer " + token})
print(urllib.request.urlopen(request).read().decode())`

// consumers read what a preset has written, each as an app of its kind does, and use it. $1 is the output.
var consumers = map[string][]string{
	"raw":    {"sh", "-c", `curl -fsS -H "Authorization: Bearer $(cat "$1")" "$API/actor/v1/whoami"`, "sh"},
	"dotenv": {"sh", "-c", `. "$1" && curl -fsS -H "Authorization: Bearer $BALENA_TOKEN" "$BALENA_API_URL/actor/v1/whoami"`, "sh"},
	"header": {"sh", "-c", `curl -fsS -H "@$1" "$API/actor/v1/whoami"`, "sh"},
	"json": {
		"python3",
		"-c",
		"import json, sys\ncontent = json.load(open(sys.argv[1]))\nurl, token = content['url'], content['token']" + ask,
	},
	"netrc": {
		"python3",
		"-c",
		"import netrc, os, sys\nurl = os.environ['API']\ntoken = netrc.netrc(sys.argv[1]).authenticators('127.0.0.1')[2]" + ask,
	},
	"balena-python": {
		"python3",
		"-c",
		"import configparser, os, sys\nconfig = configparser.ConfigParser()\nconfig.read(sys.argv[1] + '/balena.cfg')\nurl, token " +
			"= os.environ['API'], config.get('Settings', 'token')" + ask,
	},
	"balena-cli": {
		"sh",
		"-c",
		`curl -fsS -H "Authorization: Bearer $(cat "$1/token")" "$API/actor/v1/whoami"`,
		"sh",
	}, // TestBalenaCLI has the real one
}

// TestPresetsThroughARotation has all presets at once, and real consumers of each before and after a rotation.
// There is one key on the server each time, so what is accepted is the newest token.
func TestPresetsThroughARotation(t *testing.T) {
	needClients(t, "curl")
	needClients(t, "python3")
	t.Parallel()
	s := newStage(t, balenatest.Options{})
	var templates []string
	for _, preset := range render.Presets() {
		templates = append(templates, preset+":"+filepath.Join(s.dir, preset))
	}
	s.set("INJECTOR_TEMPLATES", strings.Join(templates, ","), "INJECTOR_CHECK_INTERVAL", "1s")
	p := s.start("run")
	s.ready()
	first := s.reads("balena-token")
	s.wantLive(1)
	s.consume()
	s.rotate()
	s.eventually("all outputs of the second key", func() bool {
		info := s.reads("balena-token.json")
		return strings.Contains(info, `"generation":2`) && !strings.Contains(info, "changing")
	})
	s.wantLive(1)
	if s.reads("balena-token") == first || s.server.Accepts(first) {
		t.Error("there was no rotation")
	}
	s.consume()
	p.stop()
}

// consume lets each preset's consumer use its token.
func (s *stage) consume() {
	s.t.Helper()
	for _, preset := range render.Presets() {
		if consumers[preset] == nil {
			s.t.Errorf("nobody reads the preset %s", preset)
			continue
		}
		args := append(consumers[preset][1:len(consumers[preset]):len(consumers[preset])], filepath.Join(s.dir, preset))
		cmd := exec.Command(consumers[preset][0], args...)
		cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + s.dir, "API=" + s.url}
		if out, err := cmd.CombinedOutput(); err != nil || !strings.Contains(string(out), `"username":"injector"`) {
			s.t.Errorf("%s: %v: %s", preset, err, out)
		}
	}
}
