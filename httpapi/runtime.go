package httpapi

import (
	"bytes"
	"fmt"
	"net/http"
	"runtime"
	"slices"
	"strconv"
	"strings"

	"github.com/gorilla/mux"
	"github.com/hashicorp/go-hclog"
)

// What LMCache mounts on the controller's port for a look inside the process.

// masked stands for a value that is not shown.
const masked = "***"

// env answers the environment's variables by name. LMCache gives away every value;
// here only those of known names, unless the name hints at a secret.
func (s *Server) env(w http.ResponseWriter, r *http.Request) error {
	shown := map[string]string{}
	for _, kv := range s.opts.Environ {
		name, value, _ := strings.Cut(kv, "=")
		if name == "" {
			continue
		}
		if !harmless(name) || strings.Contains(value, "://") && strings.Contains(value, "@") {
			value = masked
		}
		shown[name] = value
	}
	names := make([]string, 0, len(shown))
	for name := range shown {
		names = append(names, name)
	}
	slices.Sort(names)
	b := []byte("{")
	for i, name := range names {
		if i > 0 {
			b = append(b, ", "...)
		}
		b = appendString(b, name)
		b = append(b, ": "...)
		b = appendString(b, shown[name])
	}
	return s.writeText(w, http.StatusOK, string(append(b, '}')))
}

func harmless(name string) bool {
	if name != "PYTHONHASHSEED" && !strings.HasPrefix(name, "LMCACHE_") && !strings.HasPrefix(name, "KVCTRL_") {
		return false
	}
	upper := strings.ToUpper(name)
	for _, hint := range []string{"SECRET", "TOKEN", "PASS", "PWD", "KEY", "CRED", "AUTH", "CERT", "PRIVATE", "COOKIE", "SALT", "DSN", "URL", "EXTRA"} {
		if strings.Contains(upper, hint) {
			return false
		}
	}
	return true
}

// maxStacks bounds what /threads takes and shows.
const maxStacks = 8 << 20

// threads answers the stacks of all goroutines, in LMCache's frame. A name is searched
// for in a goroutine's first line and functions.
func (s *Server) threads(w http.ResponseWriter, r *http.Request) error {
	q := queryOf(r)
	name, _ := q.get("name")
	id, byID := q.integer("thread_id")
	if err := q.err(); err != nil {
		return err
	}
	buf := make([]byte, 256<<10)
	n := runtime.Stack(buf, true)
	for n == len(buf) && n < maxStacks {
		buf = make([]byte, 2*len(buf))
		n = runtime.Stack(buf, true)
	}
	var out bytes.Buffer
	total := 0
	for _, block := range strings.Split(strings.TrimSpace(string(buf[:n])), "\n\n") {
		head, stack, _ := strings.Cut(block, "\n")
		if byID && !strings.HasPrefix(head, "goroutine "+strconv.FormatInt(id, 10)+" ") {
			continue
		}
		if name != "" && !strings.Contains(strings.ToLower(block), strings.ToLower(name)) {
			continue
		}
		total++
		fmt.Fprintf(&out, "Thread: <%s>\n%s\n\n", strings.TrimSuffix(head, ":"), stack)
	}
	fmt.Fprintf(&out, "\n\n=== Thread Summary ===\nTotal threads: %d\n", total)
	return s.writeText(w, http.StatusOK, out.String())
}

// levels are Python's names for ours.
var levels = map[string]hclog.Level{
	"TRACE": hclog.Trace, "DEBUG": hclog.Debug, "INFO": hclog.Info, "WARNING": hclog.Warn, "WARN": hclog.Warn,
	"ERROR": hclog.Error, "CRITICAL": hclog.Error,
}

// pythonLevel is the name LMCache's users know a level by.
func pythonLevel(l hclog.Level) string {
	if l == hclog.Warn {
		return "WARNING"
	}
	return strings.ToUpper(l.String())
}

// logLevel shows or sets the log level, by GET as in LMCache. There is one level for
// the process, so any logger's name means it.
func (s *Server) logLevel(w http.ResponseWriter, r *http.Request) error {
	q := queryOf(r)
	name, byName := q.get("logger_name")
	word, set := q.get("level")
	now := pythonLevel(s.log.GetLevel())
	switch {
	case !byName && !set:
		return s.writeText(w, http.StatusOK, "=== Loggers and Levels ===\nkvctrl: "+now)
	case !byName:
		return s.writeJSON(w, http.StatusOK, nil)
	case !set:
		return s.writeText(w, http.StatusOK, name+": "+now)
	}
	level, known := levels[strings.ToUpper(word)]
	if !known {
		return s.writeText(w, http.StatusBadRequest, "Invalid log level: "+word)
	}
	s.log.SetLevel(level)
	s.log.Warn("log level set over REST", "level", level.String())
	return s.writeText(w, http.StatusOK, fmt.Sprintf("Set %s level to %s (including all handlers)", name, strings.ToUpper(word)))
}

// resetMetrics resets nothing: LMCache's resets the counters of an engine, and its
// controller's gauges keep their values.
func (s *Server) resetMetrics(w http.ResponseWriter, r *http.Request) error {
	return s.writeText(w, http.StatusOK, "ok")
}

type threadCounts struct {
	Total   int `json:"total"`
	Running int `json:"running"`
	Active  int `json:"active"`
}

// periodicThreads has LMCache's shape and no thread: they belong to engines.
func (s *Server) periodicThreads(w http.ResponseWriter, r *http.Request) error {
	type byLevel struct {
		Critical threadCounts `json:"critical"`
		High     threadCounts `json:"high"`
		Medium   threadCounts `json:"medium"`
		Low      threadCounts `json:"low"`
	}
	if level, given := queryOf(r).get("level"); given && !slices.Contains([]string{"critical", "high", "medium", "low"}, level) {
		return s.writeJSON(w, http.StatusBadRequest, map[string]string{
			"error": fmt.Sprintf("Invalid level: %s. Valid values: critical, high, medium, low", level)})
	}
	return s.writeJSON(w, http.StatusOK, struct {
		Summary struct {
			Total   int     `json:"total_count"`
			Running int     `json:"running_count"`
			Active  int     `json:"active_count"`
			Levels  byLevel `json:"by_level"`
		} `json:"summary"`
		Threads []struct{} `json:"threads"`
	}{Threads: []struct{}{}})
}

func (s *Server) periodicThread(w http.ResponseWriter, r *http.Request) error {
	return s.writeJSON(w, http.StatusNotFound, map[string]string{"error": "Thread not found: " + mux.Vars(r)["thread"]})
}

func (s *Server) periodicThreadsHealth(w http.ResponseWriter, r *http.Request) error {
	return s.writeJSON(w, http.StatusOK, struct {
		Healthy   bool       `json:"healthy"`
		Count     int        `json:"unhealthy_count"`
		Unhealthy []struct{} `json:"unhealthy_threads"`
	}{Healthy: true, Unhealthy: []struct{}{}})
}
