package httpapi

import (
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/gorilla/mux"
)

// route is one endpoint: all that the router, the metrics and /openapi.json know of it.
type route struct {
	method   string
	path     string // mux's pattern
	handle   handler
	mutate   mutator       // instead of handle: only the leader can do it; any replica takes it
	forwards forwardSeries // of a mutation
	summary  string
	body     schema   // of a POST with a body
	params   []string // query parameters, of the names in paramDocs
	answer   string   // name of the 200's schema in answerSchemas; "" is text
	errors   []int    // statuses besides 200, beyond those that every route may give
}

var (
	readParams    = []string{"consistency", "max_staleness", "min_index", "timeout"}
	commandParams = []string{"wait", "timeout"}
	commandErrors = []int{400, 404, 409, 413, 422, 502, 503, 504}
	adminParams   = []string{"timeout"}
	adminErrors   = []int{400, 404, 409, 413, 422, 503, 504}
)

func with(params []string, more ...string) []string { return append(slices.Clone(params), more...) }

// routeTable lists every endpoint. A path that is not here is 404.
func (s *Server) routeTable() []route {
	read := []int{400, 413, 422, 503}
	return []route{
		{method: "POST", path: "/lookup", handle: s.lookup, summary: "Which instances hold the beginning of a prompt, longest first", body: bodyLookup, params: readParams, answer: "Lookup", errors: read},
		{method: "POST", path: "/clear", mutate: s.command(clearOf), summary: "Remove every chunk of an instance's location", body: bodyClear, params: commandParams, answer: "Outcome", errors: commandErrors},
		{method: "POST", path: "/pin", mutate: s.command(pinOf), summary: "Keep a prompt's chunks from being evicted", body: bodyPin, params: commandParams, answer: "Outcome", errors: commandErrors},
		{method: "POST", path: "/compress", mutate: s.command(compressOf), summary: "Compress a prompt's chunks where they are", body: bodyCompress, params: commandParams, answer: "Outcome", errors: commandErrors},
		{method: "POST", path: "/decompress", mutate: s.command(decompressOf), summary: "Decompress a prompt's chunks where they are", body: bodyCompress, params: commandParams, answer: "Outcome", errors: commandErrors},
		{method: "POST", path: "/move", mutate: s.command(moveOf), summary: "Move or copy a prompt's chunks between instances", body: bodyMove, params: commandParams, answer: "Outcome", errors: commandErrors},
		{method: "POST", path: "/health", handle: s.health, summary: "Ask every worker of an instance for its self-check", body: bodyHealth, params: []string{"timeout"}, answer: "Health", errors: []int{400, 413, 422, 503, 504}},
		{method: "POST", path: "/check_finish", handle: s.checkFinish, summary: "Where a command stands", body: bodyCheckFinish, params: readParams, answer: "Finish", errors: read},
		{method: "POST", path: "/query_instance", handle: s.queryInstance, summary: "The instance that has a worker at an address", body: bodyQueryInstance, params: readParams, answer: "QueryInstance", errors: []int{400, 404, 413, 422, 503}},
		{method: "POST", path: "/query_worker_info", handle: s.queryWorkerInfo, summary: "Workers of an instance, or of all", body: bodyQueryWorkerInfo, params: readParams, answer: "QueryWorkerInfo", errors: read},

		{method: "GET", path: "/controller/workers", handle: s.workers, summary: "Workers with their key counts, in order of registration; one object when instance and rank are given", params: with(readParams, "instance_id", "worker_id"), answer: "Workers", errors: []int{404, 422, 503}},
		{method: "GET", path: "/controller/key-stats", handle: s.keyStats, summary: "Key counts; a chunk counts once per worker and location", params: readParams, answer: "KeyStats", errors: []int{422, 503}},
		{method: "GET", path: "/metrics", handle: s.serveMetrics, summary: "Prometheus text"},
		{method: "POST", path: "/metrics/reset", handle: s.resetMetrics, summary: "Answers ok and resets nothing: LMCache resets counters of engines, which a controller has none of"},
		{method: "GET", path: "/env", handle: s.env, summary: "Names of the environment's variables, and the values known to be harmless"},
		{method: "GET", path: "/threads", handle: s.threads, summary: "Stacks of all goroutines", params: []string{"name", "thread_id"}, errors: []int{422}},
		{method: "GET", path: "/loglevel", handle: s.logLevel, summary: "Shows or sets the log level; there is one for the whole process", params: []string{"logger_name", "level"}, errors: []int{400}},
		{method: "GET", path: "/periodic-threads", handle: s.periodicThreads, summary: "LMCache's periodic threads, of which a controller has none", params: []string{"level", "running_only", "active_only"}, answer: "Object", errors: []int{400}},
		{method: "GET", path: "/periodic-threads/{thread}", handle: s.periodicThread, summary: "One of LMCache's periodic threads: always 404", answer: "Object", errors: []int{404}},
		{method: "GET", path: "/periodic-threads-health", handle: s.periodicThreadsHealth, summary: "Health of LMCache's periodic threads: always good", answer: "Object"},
		{method: "GET", path: "/", handle: s.dashboard, summary: "A page for people"},
		{method: "GET", path: "/openapi.json", handle: s.openAPI, summary: "This document", answer: "Object"},

		{method: "GET", path: "/healthz", handle: s.healthz, summary: "The process is alive", answer: "Object"},
		{method: "GET", path: "/readyz", handle: s.readyz, summary: "This replica has a leader and has caught up", answer: "Object", errors: []int{503}},
		{method: "GET", path: "/instances", handle: s.instances, summary: "Instances, workers and locations, with liveness and losses", params: readParams, answer: "Instances", errors: []int{422, 503}},
		{method: "GET", path: "/events", handle: s.events, summary: "Commands and their outcomes, newest first", params: with(readParams, "kind", "status", "limit"), answer: "Events", errors: []int{422, 503}},
		{method: "GET", path: "/events/{id:.+}", handle: s.event, summary: "One command with every worker's part", params: readParams, answer: "Event", errors: []int{404, 422, 503}},
		{method: "POST", path: "/diagnose", handle: s.diagnose, summary: "Why a lookup finds what it finds: what each hash profile finds, who holds the chunks, and the reasons with what to do, the likeliest first", body: bodyDiagnose, params: readParams, answer: "Diagnosis", errors: read},
		{method: "GET", path: "/admin/status", handle: s.status, summary: "This replica and the cluster as it sees it", answer: "Status"},
		{method: "GET", path: "/admin/digest", handle: s.digest, summary: "A digest of the state, equal on every replica at equal index", params: readParams, answer: "Digest", errors: []int{422, 503}},
		{method: "POST", path: "/admin/join", mutate: s.join, summary: "Add a replica to the cluster, or change the address of one; it votes once it has caught up", body: bodyJoin, params: adminParams, answer: "Joined", errors: adminErrors},
		{method: "POST", path: "/admin/leave", mutate: s.leave, summary: "Remove a replica from the cluster", body: bodyLeave, params: adminParams, answer: "Left", errors: adminErrors},
		{method: "POST", path: "/admin/transfer", mutate: s.transfer, summary: "Hand leadership over, to the replica that is furthest or to the one named", body: bodyTransfer, params: adminParams, answer: "Transferred", errors: adminErrors},
		{method: "POST", path: "/admin/snapshot", handle: s.snapshot, summary: "Take a snapshot of this replica's state now", params: []string{"timeout"}, answer: "Snapshot", errors: []int{422, 503}},
	}
}

// newRouter makes the handler of all routes. Answers to what is not there are
// FastAPI's: 404, 405 with Allow, and 307 to the path without its trailing slash.
func (s *Server) newRouter() http.Handler {
	m := mux.NewRouter().SkipClean(true) // //lookup is another path than /lookup
	allow := map[string][]string{}
	for _, rt := range s.routes {
		if rt.mutate != nil {
			rt.forwards = s.metrics.forward.route(rt.path)
			rt.handle = s.mutating(rt)
		}
		methods := []string{rt.method}
		if rt.path == "/healthz" || rt.path == "/readyz" {
			methods = append(methods, http.MethodHead) // load balancers ask so
		}
		m.Path(rt.path).Methods(methods...).Handler(s.track(rt.path, rt.handle)).Name(rt.method + " " + rt.path)
		allow[rt.path] = append(allow[rt.path], methods...)
	}
	for path, methods := range allow { // matched after the routes above
		m.Path(path).Handler(s.track(path, s.notAllowed(methods)))
	}
	elsewhere := s.track("other", func(w http.ResponseWriter, r *http.Request) error {
		if to := withoutSlash(r.URL.Path); to != "" {
			var found mux.RouteMatch
			m.Match(&http.Request{Method: r.Method, URL: &url.URL{Path: to}}, &found)
			if found.Route != nil {
				return s.redirect(w, r, to)
			}
		}
		return &problem{code: codeNotFound, detail: "Not Found", plain: true}
	})
	m.NotFoundHandler = elsewhere
	return m
}

func (s *Server) notAllowed(methods []string) handler {
	return func(w http.ResponseWriter, r *http.Request) error {
		w.Header().Set("Allow", strings.Join(methods, ", "))
		return &problem{code: codeMethod, detail: "Method Not Allowed", plain: true}
	}
}

// withoutSlash is a path without its trailing slashes, "" when it has none. A path that
// would begin with two slashes is another host's to a browser, and no route.
func withoutSlash(path string) string {
	short := strings.TrimRight(path, "/")
	if short == path || short == "" || strings.HasPrefix(short, "//") {
		return ""
	}
	return short
}
