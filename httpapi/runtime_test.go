package httpapi

import (
	"regexp"
	"strings"
	"testing"

	"github.com/hashicorp/go-hclog"
)

func TestEnv_ShowsNoSecret(t *testing.T) {
	r := newRig(t, func(o *Options) {
		o.Environ = []string{
			"PYTHONHASHSEED=0", "LMCACHE_CHUNK_SIZE=256", "KVCTRL_LOG_LEVEL=\"info\"", "HOME=/root", "AWS_SECRET_ACCESS_KEY=hush", "LMCACHE_API_TOKEN=hush",
			"KVCTRL_TLS_KEY=hush", "lmcache_x=hush", "KVCTRL_Password=hush", "LMCACHE_REMOTE_URL=redis://:hush@h", "KVCTRL_ADDR=http://me:hush@h:9000", "LMCACHE_EXTRA_CONFIG={hush}", "KVCTRL_PEER_ADDR=h:1", "=weird", "EMPTY=", "KVCTRL_EMPTY",
		}
	})
	w := r.get("/env")
	want(t, w, 200, `{"AWS_SECRET_ACCESS_KEY": "***", "EMPTY": "***", "HOME": "***", "KVCTRL_ADDR": "***", "KVCTRL_EMPTY": "", "KVCTRL_LOG_LEVEL": "\"info\"", "KVCTRL_PEER_ADDR": "h:1", "KVCTRL_Password": "***", "KVCTRL_TLS_KEY": "***", `+
		`"LMCACHE_API_TOKEN": "***", "LMCACHE_CHUNK_SIZE": "256", "LMCACHE_EXTRA_CONFIG": "***", "LMCACHE_REMOTE_URL": "***", "PYTHONHASHSEED": "0", "lmcache_x": "***"}`)
	if w.Header().Get("Content-Type") != "text/plain; charset=utf-8" {
		t.Error(w.Header())
	}
	want(t, newRig(t).get("/env"), 200, "{}")
}

func TestThreads(t *testing.T) {
	r := newRig(t)
	all := r.get("/threads").Body.String()
	if !strings.HasPrefix(all, "Thread: <goroutine ") || !strings.Contains(all, "TestThreads") || !strings.Contains(all, "=== Thread Summary ===\nTotal threads: ") {
		t.Errorf("%.300s", all)
	}
	if got := r.get("/threads?name=testTHREADS").Body.String(); !strings.HasSuffix(got, "Total threads: 1\n") {
		t.Errorf("%.300s", got)
	}
	want(t, r.get("/threads?name=nosuchthread"), 200, "\n\n=== Thread Summary ===\nTotal threads: 0\n")
	if got := r.get("/threads?thread_id=1").Body.String(); !strings.HasPrefix(got, "Thread: <goroutine 1 ") || !strings.HasSuffix(got, "Total threads: 1\n") {
		t.Errorf("%.300s", got)
	}
	want(t, r.get("/threads?thread_id=x"), 422, "")
}

func TestLogLevel(t *testing.T) {
	log := hclog.New(&hclog.LoggerOptions{Output: testWriter{t}, Level: hclog.Info})
	r := newRig(t, func(o *Options) { o.Logger = log.Named("http") })
	want(t, r.get("/loglevel"), 200, "=== Loggers and Levels ===\nkvctrl: INFO")
	want(t, r.get("/loglevel?logger_name=lmcache.x&level=warning"), 200, "Set lmcache.x level to WARNING (including all handlers)")
	if log.GetLevel() != hclog.Warn {
		t.Errorf("level of the whole process is %v", log.GetLevel())
	}
	want(t, r.get("/loglevel?logger_name=lmcache.x"), 200, "lmcache.x: WARNING")
	want(t, r.get("/loglevel?logger_name=lmcache.x&level=loud"), 400, "Invalid log level: loud")
	want(t, r.get("/loglevel?level=debug"), 200, "null")
	if log.GetLevel() != hclog.Warn {
		t.Errorf("level of the whole process is %v", log.GetLevel())
	}
}

func TestPage(t *testing.T) {
	r := newRig(t, func(o *Options) { o.Version = `1.0<b>"` })
	w := r.get("/")
	body := w.Body.String()
	if w.Code != 200 || !strings.HasPrefix(body, "<!DOCTYPE html>") || !strings.Contains(body, "1.0&lt;b&gt;&quot;") || strings.Contains(body, "{{") {
		t.Errorf("%d %.300s", w.Code, body)
	}
	policy := w.Header().Get("Content-Security-Policy")
	if !strings.Contains(policy, "default-src 'none'") || strings.Contains(policy, "unsafe") || strings.Count(policy, "'sha256-") != 2 {
		t.Errorf("policy %q", policy)
	}
	for _, outside := range []string{"http://", "https://", "src=", "@import", "innerHTML"} {
		if strings.Contains(body, outside) {
			t.Errorf("the page has %q", outside)
		}
	}
}

// TestPage_ShowsWhatTheAnswersHold: every field that the script reads is one of an answer.
func TestPage_ShowsWhatTheAnswersHold(t *testing.T) {
	fields := regexp.MustCompile(`\b(?:st|inst|ev|i|w|l|e|n|place)\.([a-z_]+)\b[^(]`).FindAllStringSubmatch(pageSource, -1)
	seen := map[string]bool{}
	for _, f := range fields {
		if seen[f[1]] = true; f[1] != "message" && !strings.Contains(string(answerSchemas), `"`+f[1]+`":`) {
			t.Errorf("the page reads %q, which no answer has", f[1])
		}
	}
	for _, want := range []string{"applied_index", "reachable", "last_contact_ms", "voter", "instances", "liveness", "key_count", "kind", "destination", "location", "detail"} {
		if !seen[want] {
			t.Errorf("the page does not read %q", want)
		}
	}
}

// TestRunScript_IsNowhere: code is never taken over the network.
func TestRunScript_IsNowhere(t *testing.T) {
	r := newRig(t)
	for _, path := range []string{"/run_script", "/run_script/", "/docs/run_script"} {
		want(t, r.post(path, "print(1)"), 404, "")
	}
}
