package httpapi

import (
	"bytes"
	"encoding/json"
	"net/http"
	"strconv"
	"sync"
	"unicode/utf8"

	"github.com/kvctrl/kvctrl/registry"
)

// jsonPool keeps buffers for answers.
var jsonPool = sync.Pool{New: func() any { return new(bytes.Buffer) }}

// writeJSON answers with v. The order of a struct's fields is that of the answer; text
// stays UTF-8, as FastAPI leaves it.
func (s *Server) writeJSON(w http.ResponseWriter, status int, v any) error {
	buf := jsonPool.Get().(*bytes.Buffer)
	defer func() {
		if buf.Cap() <= keepBody {
			jsonPool.Put(buf)
		}
	}()
	buf.Reset()
	enc := json.NewEncoder(buf)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return err
	}
	s.write(w, status, "application/json", buf.Bytes()[:buf.Len()-1]) // without Encode's newline
	return nil
}

func (s *Server) writeText(w http.ResponseWriter, status int, text string) error {
	s.write(w, status, "text/plain; charset=utf-8", []byte(text))
	return nil
}

// write sends an answer.
func (s *Server) write(w http.ResponseWriter, status int, contentType string, body []byte) {
	h := w.Header()
	h.Set("Content-Type", contentType)
	h.Set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(status)
	_, _ = w.Write(body) // the client has gone: nobody is left to tell
}

// seconds is a time as LMCache shows it: Unix seconds, always with a fraction.
type seconds registry.Micros

func (t seconds) MarshalJSON() ([]byte, error) {
	b := strconv.AppendFloat(nil, float64(t)/1e6, 'f', -1, 64)
	if !bytes.ContainsRune(b, '.') {
		b = append(b, ".0"...)
	}
	return b, nil
}

// appendString appends s as a JSON text. Only what must be is escaped.
func appendString(dst []byte, s string) []byte {
	const hex = "0123456789abcdef"
	dst = append(dst, '"')
	for i := 0; i < len(s); {
		switch c := s[i]; {
		case c == '"' || c == '\\':
			dst = append(dst, '\\', c)
		case c < 0x20:
			dst = append(dst, '\\', 'u', '0', '0', hex[c>>4], hex[c&15])
		case c < utf8.RuneSelf:
			dst = append(dst, c)
		default:
			r, n := utf8.DecodeRuneInString(s[i:])
			dst = utf8.AppendRune(dst, r) // invalid UTF-8 becomes U+FFFD
			i += n
			continue
		}
		i++
	}
	return append(dst, '"')
}

// asText is bytes as a JSON text, cut at maxInput.
func asText(b []byte) json.RawMessage {
	return appendString(nil, string(b[:min(len(b), maxInput)]))
}
