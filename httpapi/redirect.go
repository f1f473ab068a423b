package httpapi

import (
	"net/http"
	"net/url"
)

// redirect sends a client to the path without the trailing slash, method and body kept
// (307), by an absolute address as LMCache does.
func (s *Server) redirect(w http.ResponseWriter, r *http.Request, path string) error {
	to := url.URL{Scheme: "http", Host: r.Host, Path: path, RawQuery: r.URL.RawQuery}
	if r.TLS != nil {
		to.Scheme = "https"
	}
	w.Header().Set("Location", to.String())
	w.WriteHeader(http.StatusTemporaryRedirect)
	return nil
}
