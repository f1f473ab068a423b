package e2e

import (
	"io"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/knadh/koanf/parsers/yaml"
)

// TestAlerts_NameWhatThereIs: an alert on a series that no replica has never rings. Every
// metric, label and label value of deploy/alerts.yml is there on a replica that runs.
func TestAlerts_NameWhatThereIs(t *testing.T) {
	t.Parallel()
	root, err := moduleRoot()
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(filepath.Join(root, "deploy", "alerts.yml"))
	if err != nil {
		t.Fatal(err)
	}
	rules := alertRules(t, text)
	if len(rules) < 10 {
		t.Fatalf("%d alerts found", len(rules))
	}

	r := Start(t, Options{})
	resp, err := r.client.Get(r.URL("/metrics"))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("/metrics: %d, %v", resp.StatusCode, err)
	}
	lines := strings.Split(string(body), "\n")

	selector := regexp.MustCompile(`\b(kvctrl_[a-z0-9_]+|lmcache:[a-z0-9_:]+)(?:\{([^}]*)\})?`)
	by := regexp.MustCompile(`\bby \(([^)]*)\)`)
	for name, expr := range rules {
		found := selector.FindAllStringSubmatch(expr, -1)
		if len(found) == 0 && !strings.Contains(expr, `up{job="kvctrl"}`) {
			t.Errorf("%s: no metric in %q", name, expr)
		}
		for _, m := range found {
			if !hasSeries(lines, m[1], m[2]) {
				t.Errorf("%s: no series %s{%s} in /metrics", name, m[1], m[2])
			}
			for _, labels := range by.FindAllStringSubmatch(expr, -1) {
				for label := range strings.SplitSeq(labels[1], ",") {
					if label = strings.TrimSpace(label); label != "instance" && !hasSeries(lines, m[1], label+"=") {
						t.Errorf("%s: %s has no label %q in /metrics", name, m[1], label)
					}
				}
			}
		}
	}
}

// alertRules returns the expressions by name.
func alertRules(t *testing.T, text []byte) map[string]string {
	t.Helper()
	file, err := yaml.Parser().Unmarshal(text)
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]string{}
	for _, group := range file["groups"].([]any) {
		for _, rule := range group.(map[string]any)["rules"].([]any) {
			r := rule.(map[string]any)
			name, _ := r["alert"].(string)
			expr, _ := r["expr"].(string)
			if name == "" || expr == "" || out[name] != "" {
				t.Errorf("rule %v: want a name of its own and an expression", r)
			}
			if s := r["labels"].(map[string]any)["severity"]; s != "page" && s != "ticket" {
				t.Errorf("%s: severity %v", name, s)
			}
			if summary, _ := r["annotations"].(map[string]any)["summary"].(string); summary == "" {
				t.Errorf("%s: no summary", name)
			}
			out[name] = expr
		}
	}
	return out
}

// hasSeries reports whether a metric has a series with all of the labels.
func hasSeries(lines []string, metric, labels string) bool {
	for _, line := range lines {
		series, _, _ := strings.Cut(line, " ")
		name, have, _ := strings.Cut(series, "{")
		if name != metric {
			continue
		}
		all := true
		for label := range strings.SplitSeq(labels, ",") {
			all = all && strings.Contains(have, strings.TrimSpace(label))
		}
		if all {
			return true
		}
	}
	return false
}
