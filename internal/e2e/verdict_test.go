package e2e

import (
	"encoding/json"
	"fmt"
	"mime"
	"net/http"
	"slices"
	"strings"
)

// answer is what a REST request got.
type answer struct {
	status int
	header http.Header
	raw    []byte
	body   any // parsed JSON; nil when it is none
	json   bool
}

// kindOf is the media type without Prometheus' own parameters.
func kindOf(contentType string) string {
	kind, params, err := mime.ParseMediaType(contentType)
	if err != nil {
		return contentType
	}
	if cs := params["charset"]; cs != "" && kind != "application/json" {
		kind += "; charset=" + strings.ToLower(cs)
	}
	return kind
}

// headersOfEveryAnswer are interface promises, whatever the status.
func headersOfEveryAnswer(a answer) []string {
	var faults []string
	for _, name := range []string{"X-Kvctrl-Node", "X-Kvctrl-Role", "X-Kvctrl-Leader", "X-Kvctrl-Index", "X-Kvctrl-Staleness-Ms"} {
		if a.header.Values(name) == nil {
			faults = append(faults, "no header "+name)
		}
	}
	return faults
}

// sameAnswer holds an answer against the recorded one: contract and superset.
func sameAnswer(r *restRow, recorded any, a answer, superset bool) []string {
	var faults []string
	if r.Response.Status == nil {
		return []string{"bug: a row without an answer cannot be a contract"}
	}
	if a.status != *r.Response.Status {
		faults = append(faults, fmt.Sprintf("want status %d, got %d: %s", *r.Response.Status, a.status, shorten(string(a.raw), 400)))
		return faults
	}
	faults = append(faults, sameKind(r, a)...)
	if isMetrics(recorded) {
		return faults // judged by metrics_test.go
	}
	if want, ok := recorded.(string); ok && !a.json {
		if want != string(a.raw) {
			faults = append(faults, fmt.Sprintf("want the text %q, got %q", want, shorten(string(a.raw), 400)))
		}
		return faults
	}
	return append(faults, differences(recorded, a.body, superset)...)
}

func sameKind(r *restRow, a answer) []string {
	if r.Response.ContentType == nil {
		return nil
	}
	want, got := kindOf(*r.Response.ContentType), kindOf(a.header.Get("Content-Type"))
	if want != got {
		return []string{fmt.Sprintf("want content type %q, got %q", want, a.header.Get("Content-Type"))}
	}
	return nil
}

// sameShape holds an answer against the recorded one where the wording is free.
func sameShape(r *restRow, recorded any, a answer) []string {
	if a.status != *r.Response.Status {
		return []string{fmt.Sprintf("want status %d, got %d: %s", *r.Response.Status, a.status, shorten(string(a.raw), 400))}
	}
	faults := sameKind(r, a)
	if want, ok := r.Response.Headers["allow"]; ok {
		faults = append(faults, sameAllow(want, a.header.Values("Allow"))...)
	}
	if want, ok := r.Response.Headers["location"]; ok {
		_, path, _ := strings.Cut(want, "<host>")
		if got := a.header.Get("Location"); !strings.HasSuffix(got, path) {
			faults = append(faults, fmt.Sprintf("want the location %q, got %q", want, got))
		}
	}
	body, ok := recorded.(object)
	if !ok { // HEAD and redirects
		return faults
	}
	got, ok := a.body.(object)
	if !ok {
		return append(faults, fmt.Sprintf("want an object, got %q", shorten(string(a.raw), 400)))
	}
	if a.status != http.StatusUnprocessableEntity {
		if got.text("detail") == "" {
			faults = append(faults, "detail says nothing: "+show(got))
		}
		return faults
	}
	want, _ := body.get("detail")
	list, _ := got.get("detail")
	return append(faults, sameFaults(want, list)...)
}

func sameAllow(want string, got []string) []string {
	var methods []string
	for _, line := range got {
		for m := range strings.SplitSeq(line, ",") {
			methods = append(methods, strings.TrimSpace(m))
		}
	}
	if !slices.Equal(methods, strings.Split(want, ", ")) {
		return []string{fmt.Sprintf("want Allow %q, got %q", want, got)}
	}
	return nil
}

// sameFaults compares the items of a 422 by type and place; each says something.
func sameFaults(want, got any) []string {
	wants, _ := want.([]any)
	gots, ok := got.([]any)
	if !ok || len(gots) != len(wants) {
		return []string{fmt.Sprintf("want %d faults in detail, got %s", len(wants), show(got))}
	}
	var faults []string
	for i := range wants {
		w, _ := wants[i].(object)
		g, _ := gots[i].(object)
		for _, key := range []string{"type", "loc"} {
			wv, _ := w.get(key)
			gv, _ := g.get(key)
			for _, d := range differences(wv, gv, false) {
				faults = append(faults, fmt.Sprintf("fault %d, %s: %s", i, key, d))
			}
		}
		if g.text("msg") == "" {
			faults = append(faults, fmt.Sprintf("fault %d has no msg: %s", i, show(g)))
		}
	}
	return faults
}

// sameReply holds a ZMQ reply against the recorded one.
func sameReply(verdict string, want, got any) []string {
	if verdict != "shape" {
		return differences(want, got, false)
	}
	w, _ := want.(object)
	g, _ := got.(object)
	if g.text("type") != w.text("type") || len(g) != len(w) {
		return []string{fmt.Sprintf("want %s with any text, got %s", show(want), show(got))}
	}
	if g.text("type") == "ErrorMsg" && g.text("error") == "" {
		return []string{"ErrorMsg says nothing"}
	}
	return nil
}

// received is one line for each command that reached a worker.
func brief(hs []heard) []string {
	out := make([]string, len(hs))
	for i, h := range hs {
		kind := show(h.message)
		if m, ok := h.message.(object); ok {
			kind = m.text("type")
		}
		out[i] = fmt.Sprintf("%s/%d %s", h.instance, h.worker, kind)
	}
	return out
}

// sameReceived holds what reached the workers against the recording.
func sameReceived(recorded json.RawMessage, got []heard) []string {
	var want []any
	if len(recorded) > 0 {
		v, err := parseJSON(recorded)
		if err != nil {
			return []string{err.Error()}
		}
		want, _ = v.([]any)
	}
	if len(want) != len(got) {
		return []string{fmt.Sprintf("want %d commands at the workers, got %q", len(want), brief(got))}
	}
	var faults []string
	for i, w := range want {
		w, _ := w.(object)
		instance, worker := w.text("instance_id"), int64(-1)
		if v, ok := w.get("worker_id"); ok {
			if n, ok := v.(json.Number); ok {
				worker, _ = n.Int64()
			}
		}
		if got[i].instance != instance || got[i].worker != worker {
			faults = append(faults, fmt.Sprintf("want command %d at %s/%d, got %s", i, instance, worker, brief(got)[i]))
			continue
		}
		message, _ := w.get("message")
		for _, d := range differences(message, got[i].message, false) {
			faults = append(faults, fmt.Sprintf("command to %s/%d: %s", instance, worker, d))
		}
	}
	return faults
}

// sameEventID: a worker's event id holds the answer's, where LMCache's does.
func sameEventID(a answer, got []heard) []string {
	body, _ := a.body.(object)
	id := body.text("event_id")
	var faults []string
	for _, h := range got {
		m, _ := h.message.(object)
		switch m.text("type") {
		case "ClearWorkerMsg", "PinWorkerMsg":
			if want := fmt.Sprintf("Worker%d%s", h.worker, id); id != "" && m.text("worker_event_id") != want {
				faults = append(faults, fmt.Sprintf("want worker_event_id %q, got %q", want, m.text("worker_event_id")))
			}
		}
	}
	return faults
}
