package httpapi

import (
	"crypto/sha256"
	_ "embed"
	"encoding/base64"
	"net/http"
	"strings"
)

// The page is one file without anything from elsewhere: it asks the same endpoints as
// everybody.
//
//go:embed page.html
var pageSource string

// page is what GET / answers.
type page struct {
	html   []byte
	policy string // Content-Security-Policy: this page's own script and style, nothing else
}

func newPage(version string) page {
	html := strings.ReplaceAll(pageSource, "{{version}}", escaped(version))
	inline := func(tag string) string {
		_, rest, _ := strings.Cut(html, "<"+tag+">")
		body, _, _ := strings.Cut(rest, "</"+tag+">")
		sum := sha256.Sum256([]byte(body))
		return "'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) + "'"
	}
	return page{
		html: []byte(html),
		policy: "default-src 'none'; connect-src 'self'; form-action 'none'; frame-ancestors 'none'; base-uri 'none'; " +
			"style-src " + inline("style") + "; script-src " + inline("script"),
	}
}

func escaped(s string) string {
	return strings.NewReplacer("&", "&amp;", "<", "&lt;", ">", "&gt;", `"`, "&quot;").Replace(s)
}

func (s *Server) dashboard(w http.ResponseWriter, r *http.Request) error {
	w.Header().Set("Content-Security-Policy", s.page.policy)
	s.write(w, http.StatusOK, "text/html; charset=utf-8", s.page.html)
	return nil
}
