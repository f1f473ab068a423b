package httpapi

import (
	"encoding/json"
	"net/http"
	"slices"
	"sort"
	"strings"
	"testing"

	"github.com/gorilla/mux"
)

// TestOpenAPI_IsTheRouter: every route is documented, and nothing else is.
func TestOpenAPI_IsTheRouter(t *testing.T) {
	r := newRig(t)
	w := r.get("/openapi.json")
	var doc struct {
		OpenAPI    string
		Info       struct{ Title, Version string }
		Paths      map[string]map[string]json.RawMessage
		Components struct{ Schemas map[string]json.RawMessage }
	}
	if err := json.Unmarshal(w.Body.Bytes(), &doc); err != nil {
		t.Fatal(err)
	}
	if doc.OpenAPI != "3.1.0" || doc.Info.Version != "test" {
		t.Errorf("%+v", doc.Info)
	}
	var documented, routed []string
	for path, ops := range doc.Paths {
		for method := range ops {
			documented = append(documented, strings.ToUpper(method)+" "+path)
		}
	}
	err := r.s.Handler().(*mux.Router).Walk(func(rt *mux.Route, _ *mux.Router, _ []*mux.Route) error {
		path, err := rt.GetPathTemplate()
		if err != nil {
			return err
		}
		methods, err := rt.GetMethods()
		if err != nil {
			return nil // the answer to other methods
		}
		for _, m := range methods {
			if m != http.MethodHead {
				routed = append(routed, m+" "+pathVariable.ReplaceAllString(path, "{$1}"))
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	sort.Strings(documented)
	sort.Strings(routed)
	if !slices.Equal(documented, routed) {
		t.Errorf("documented %q\nrouted %q", documented, routed)
	}
	// Each reference leads somewhere, and each schema is referred to.
	for _, part := range strings.Split(w.Body.String(), `"#/components/schemas/`)[1:] {
		name, _, _ := strings.Cut(part, `"`)
		if _, ok := doc.Components.Schemas[name]; !ok {
			t.Errorf("no schema %q", name)
		}
	}
	for name := range doc.Components.Schemas {
		if !strings.Contains(w.Body.String(), `"#/components/schemas/`+name+`"`) {
			t.Errorf("schema %q is not used", name)
		}
	}
	for _, rt := range r.s.routes {
		for _, p := range rt.params {
			if paramDocs[p] == nil {
				t.Errorf("%s: parameter %q is not described", rt.path, p)
			}
		}
	}
}

// TestOpenAPI_Bodies: what the document says of a body is what is checked.
func TestOpenAPI_Bodies(t *testing.T) {
	b, err := json.Marshal(bodyMove.jsonSchema())
	if err != nil {
		t.Fatal(err)
	}
	var s struct {
		Required   []string
		Properties map[string]struct {
			Type      any
			MaxLength int
			MinItems  int
		}
	}
	if err := json.Unmarshal(b, &s); err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(s.Required, []string{"old_position", "new_position"}) || s.Properties["event_id"].MaxLength != 128 || s.Properties["old_position"].MinItems != 2 {
		t.Errorf("%s", b)
	}
}

// TestRoutes_Elsewhere: what is not there is answered as FastAPI would.
func TestRoutes_Elsewhere(t *testing.T) {
	r := newRig(t)
	for _, c := range []struct {
		method, target string
		status         int
		header, value  string
	}{
		{"POST", "/lookup/?x=1&y=2", 307, "Location", "http://example.com/lookup?x=1&y=2"},
		{"GET", "/controller/workers//", 307, "Location", "http://example.com/controller/workers"},
		{"GET", "/lookup/", 307, "Location", "http://example.com/lookup"},
		{"GET", "/events/", 307, "Location", "http://example.com/events"},
		{"GET", "//evil.example/", 404, "Location", ""},
		{"GET", "/nothing/", 404, "Location", ""},
		{"GET", "//", 404, "Location", ""},
		{"PUT", "/healthz", 405, "Allow", "GET, HEAD"},
		{"HEAD", "/healthz", 200, "", ""},
		{"HEAD", "/", 405, "Allow", "GET"},
		{"OPTIONS", "/events/x", 405, "Allow", "GET"},
		{"POST", "/admin/status", 405, "Allow", "GET"},
		{"GET", "/admin/join", 405, "Allow", "POST"},
		{"GET", "/admin/nothing", 404, "", ""},
	} {
		w := r.send(c.method, c.target, "")
		if w.Code != c.status || c.header != "" && w.Header().Get(c.header) != c.value {
			t.Errorf("%s %s: %d %s %q, want %d %q", c.method, c.target, w.Code, w.Body, w.Header().Get(c.header), c.status, c.value)
		}
	}
}

// TestOpenAPI_Why: the document lists the codes that there are.
func TestOpenAPI_Why(t *testing.T) {
	var schemas struct{ Why struct{ Enum []string } }
	if err := json.Unmarshal(answerSchemas, &schemas); err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(schemas.Why.Enum, whyCodes) {
		t.Errorf("%q\nwant %q", schemas.Why.Enum, whyCodes)
	}
}
