package httpapi

import (
	_ "embed"
	"encoding/json"
	"maps"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// answerSchemas are the JSON Schemas of the answers, by name.
//
//go:embed openapi_schemas.json
var answerSchemas []byte

// paramDocs describe the query parameters that routes name.
var paramDocs = map[string]map[string]any{
	"consistency":   {"type": "string", "enum": consistencies, "default": "stale"},
	"max_staleness": {"type": "string", "pattern": usualDuration, "examples": []string{"250ms"}, "description": "How old the state may be, with consistency=bounded."},
	"min_index":     {"type": "integer", "minimum": 0, "description": "Wait until this replica has applied that index."},
	"timeout":       {"type": "string", "pattern": usualDuration, "examples": []string{"2s"}, "description": "Longest wait, 10 minutes at most: of a read for its freshness, of a command for each worker's answer."},
	"wait":          {"type": "boolean", "default": true, "description": "false: answer 202 with the event id at once."},
	"limit":         {"type": "integer", "minimum": 1, "maximum": maxEvents, "default": defaultEvents},
	"kind":          {"type": "string", "enum": texts(commandKinds), "description": "Only commands of that kind."},
	"status":        {"type": "string", "enum": texts(eventStates), "description": "Only commands that stand so."},
	"instance_id":   {"type": "string"},
	"worker_id":     {"type": "integer"},
	"name":          {"type": "string", "description": "Part of a goroutine's stack."},
	"thread_id":     {"type": "integer", "description": "A goroutine's number."},
	"logger_name":   {"type": "string"},
	"level":         {"type": "string"},
	"running_only":  {"type": "boolean"},
	"active_only":   {"type": "boolean"},
}

// usualDuration is what clients should write; 1m30s and the like are understood too.
const usualDuration = `^([1-9][0-9]{0,4}ms|[1-9][0-9]?s?|0\.[1-9]s?)$`

// headerDocs describe the headers of every answer.
var headerDocs = map[string]any{
	headerNode:      headerDoc("string", "The replica that answers."),
	headerRole:      headerDoc("string", "Its role: leader, follower or candidate."),
	headerLeader:    headerDoc("string", "The leader's URL, empty when there is none or it is not known."),
	headerIndex:     headerDoc("integer", "The state has applied at least this index."),
	headerStaleness: headerDoc("string", "Everything committed longer ago than this is in the state; empty when nothing is known."),
}

func headerDoc(typ, text string) map[string]any {
	return map[string]any{"description": text, "schema": map[string]any{"type": typ}}
}

// pathVariable is {name} or {name:pattern} in a mux pattern.
var pathVariable = regexp.MustCompile(`\{(\w+)(?::[^}]*)?\}`)

// openAPI makes the document from the routes and the bodies' tables, so that it cannot
// say anything else than they do.
func openAPI(routes []route, version string) []byte {
	var schemas map[string]any
	if err := json.Unmarshal(answerSchemas, &schemas); err != nil {
		panic("bug: openapi_schemas.json: " + err.Error())
	}
	paths := map[string]map[string]any{}
	for _, rt := range routes {
		path := pathVariable.ReplaceAllString(rt.path, "{$1}")
		if paths[path] == nil {
			paths[path] = map[string]any{}
		}
		paths[path][strings.ToLower(rt.method)] = operation(rt)
	}
	doc, err := json.MarshalIndent(map[string]any{
		"openapi": "3.1.0",
		"info": map[string]any{"title": "kvctrl", "version": version,
			"description": "A replicated cache controller for LMCache: LMCache's own endpoints, and those of a cluster."},
		"paths":      paths,
		"components": map[string]any{"schemas": schemas},
	}, "", " ")
	if err != nil {
		panic("bug: openapi document: " + err.Error())
	}
	return doc
}

func operation(rt route) map[string]any {
	op := map[string]any{
		"summary":     rt.summary,
		"operationId": strings.Trim(regexp.MustCompile(`\W+`).ReplaceAllString(strings.ToLower(rt.method)+pathVariable.ReplaceAllString(rt.path, "$1"), "_"), "_"),
		"responses":   responses(rt),
	}
	var params []map[string]any
	for _, v := range pathVariable.FindAllStringSubmatch(rt.path, -1) {
		params = append(params, map[string]any{"name": v[1], "in": "path", "required": true, "schema": map[string]any{"type": "string"}})
	}
	for _, name := range rt.params {
		params = append(params, map[string]any{"name": name, "in": "query", "required": false, "schema": paramDocs[name]})
	}
	if params != nil {
		op["parameters"] = params
	}
	if rt.body != nil {
		op["requestBody"] = map[string]any{"required": rt.body.required(),
			"content": map[string]any{"application/json": map[string]any{"schema": rt.body.jsonSchema()}}}
	}
	return op
}

func responses(rt route) map[string]any {
	content := func(typ string, schema any) map[string]any {
		return map[string]any{typ: map[string]any{"schema": schema}}
	}
	ref := func(name string) map[string]any { return map[string]any{"$ref": "#/components/schemas/" + name} }
	answer := func(text string, content map[string]any) map[string]any {
		return map[string]any{"description": text, "headers": headerDocs, "content": content}
	}
	out := map[string]any{}
	switch {
	case rt.path == "/":
		out["200"] = answer("The page.", content("text/html", map[string]any{"type": "string"}))
	case rt.answer == "":
		out["200"] = answer("Text.", content("text/plain", map[string]any{"type": "string"}))
	case rt.path == "/periodic-threads/{thread}":
	default:
		out["200"] = answer("Success.", content("application/json", ref(rt.answer)))
	}
	if rt.path == "/loglevel" {
		out["200"].(map[string]any)["content"].(map[string]any)["application/json"] = map[string]any{"schema": map[string]any{"type": "null"}}
	}
	if rt.path == "/lookup" {
		headers := maps.Clone(headerDocs)
		headers[headerMiss] = map[string]any{"description": "The likeliest reason of an empty answer, by what is at hand. /diagnose says more.", "schema": ref("Why")}
		out["200"].(map[string]any)["headers"] = headers
	}
	if slices.Contains(rt.params, "wait") {
		out["202"] = answer("Accepted; not waited for.", content("application/json", ref("Accepted")))
	}
	for _, status := range rt.errors {
		name := "Problem"
		switch {
		case status == http.StatusUnprocessableEntity:
			name = "Unprocessable"
		case strings.HasPrefix(rt.path, "/periodic-threads"):
			name = "Object"
		}
		typ := "application/json"
		schema := any(ref(name))
		if rt.path == "/loglevel" {
			typ, schema = "text/plain", map[string]any{"type": "string"}
		}
		out[strconv.Itoa(status)] = answer(http.StatusText(status), content(typ, schema))
	}
	return out
}

// jsonSchema is the body as documented: what validate.go accepts beyond it (numbers as
// text, whole floats) is for old clients.
func (sc schema) jsonSchema() map[string]any {
	props := map[string]any{}
	required := []string{}
	for _, f := range sc {
		p := map[string]any{"description": f.doc}
		switch f.kind {
		case kindString, kindAny:
			p["type"] = "string"
			if most := max(f.maxChars, f.maxBytes); most > 0 {
				p["maxLength"] = most // of bytes: as many characters cannot be fewer
			}
			if f.pattern != nil {
				p["pattern"] = f.pattern.String()
			}
		case kindBool:
			p["type"] = "boolean"
		case kindInts:
			p["type"] = "array"
			p["items"] = map[string]any{"type": "integer"}
		case kindPair:
			p["type"] = "array"
			item := map[string]any{"type": "string"}
			if f.maxBytes > 0 {
				item["maxLength"] = f.maxBytes
			}
			p["prefixItems"] = []any{item, item}
			p["minItems"], p["maxItems"] = 2, 2
		}
		if f.nullable {
			p["type"] = []string{p["type"].(string), "null"}
		}
		if f.required {
			required = append(required, f.name)
		}
		props[f.name] = p
	}
	return map[string]any{"type": "object", "properties": props, "required": required}
}

func (s *Server) openAPI(w http.ResponseWriter, r *http.Request) error {
	s.write(w, http.StatusOK, "application/json", s.openapi)
	return nil
}
