package main

import (
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/knadh/koanf/parsers/yaml"

	"github.com/kvctrl/kvctrl/httpapi"
)

// TestDeploy_SetsWhatThereIs: every KVCTRL_ variable that the files of a deployment set
// is a setting of serve, and the fleet's command lines are simulate's.
func TestDeploy_SetsWhatThereIs(t *testing.T) {
	for _, file := range []string{"../../docker-compose.yml", "../../Dockerfile", "../../deploy/kvctrld.service"} {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		names := regexp.MustCompile(`\bKVCTRL_([A-Z_]+)[:=]`).FindAllStringSubmatch(string(text), -1)
		if len(names) == 0 {
			t.Errorf("nothing found in %s", file)
		}
		for _, m := range names {
			if m[1] == "NAME" { // of an example
				continue
			}
			if _, ok := optionNamed(strings.ToLower(m[1])); !ok {
				t.Errorf("%s sets KVCTRL_%s, which is no setting", file, m[1])
			}
		}
	}

	text, err := os.ReadFile("../../docker-compose.yml")
	if err != nil {
		t.Fatal(err)
	}
	file, err := yaml.Parser().Unmarshal(text)
	if err != nil {
		t.Fatal(err)
	}
	fleets := 0
	for name, s := range file["services"].(map[string]any) {
		words, ok := s.(map[string]any)["command"].([]any)
		if !ok {
			continue
		}
		fleets++
		var args []string
		for _, w := range words {
			args = append(args, w.(string))
		}
		cmd, flags, err := newRoot().Find(args)
		if err == nil {
			err = cmd.ParseFlags(flags)
		}
		if err != nil || cmd.Name() != "simulate" {
			t.Errorf("service %s runs kvctrld %q: %v", name, args, err)
		}
	}
	if fleets == 0 {
		t.Error("no fleet found in docker-compose.yml")
	}
}

// TestDeploy_StopTakesLess: what a deployment lets a stop take is more than the limits of
// its steps together, and the time that its files name is no less than those.
func TestDeploy_StopTakesLess(t *testing.T) {
	rest := httpapi.DefaultDrainTimeout + httpapi.LastWords // the workers' last words take less meanwhile
	most := patience + settle + transferWithin + rest + stopWithin
	for file, granted := range map[string]string{
		"../../docker-compose.yml":     `stop_grace_period: (\d+)s`,
		"../../deploy/kvctrld.service": `TimeoutStopSec=(\d+)`,
	} {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for what, pattern := range map[string]string{"grants": granted, "names": `(\d+) s( at most|\.\n)`} {
			m := regexp.MustCompile(pattern).FindStringSubmatch(string(text))
			if m == nil {
				t.Errorf("%s %s no time for a stop (%s)", file, what, pattern)
				continue
			}
			seconds, err := strconv.Atoi(m[1])
			if err != nil {
				t.Fatal(err)
			}
			if limit := time.Duration(seconds) * time.Second; limit < most || what == "grants" && limit < most+time.Second {
				t.Errorf("%s %s %s for a stop, whose steps may take %s", file, what, limit, most)
			}
		}
	}
}
