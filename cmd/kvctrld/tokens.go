package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
)

// maxTokens bounds a prompt given on the command line: far beyond any model's
// context, and small enough to send.
const maxTokens = 4 << 20

// readTokens reads a prompt: "1,2,3", ranges such as "0..1023", "@FILE" or "-" for
// standard input, where it may also be a JSON list.
func readTokens(arg string, stdin io.Reader) ([]int64, error) {
	switch {
	case arg == "-":
		b, err := io.ReadAll(io.LimitReader(stdin, 64<<20))
		if err != nil {
			return nil, fmt.Errorf("tokens from standard input: %w", err)
		}
		return parseTokens(string(b))
	case strings.HasPrefix(arg, "@"):
		b, err := os.ReadFile(arg[1:])
		if err != nil {
			return nil, fmt.Errorf("tokens: %w", err)
		}
		return parseTokens(string(b))
	}
	return parseTokens(arg)
}

func parseTokens(s string) ([]int64, error) {
	s = strings.TrimSpace(s)
	tokens := []int64{}
	if strings.HasPrefix(s, "[") {
		if err := json.Unmarshal([]byte(s), &tokens); err != nil {
			return nil, fmt.Errorf("tokens: %w", err)
		}
		return tokens, nil
	}
	for _, word := range strings.FieldsFunc(s, func(r rune) bool { return r == ',' || r == ' ' || r == '\n' || r == '\t' || r == '\r' }) {
		first, last, isRange := strings.Cut(word, "..")
		a, err := strconv.ParseInt(first, 10, 64)
		if err != nil {
			return nil, fmt.Errorf("token %q is no whole number", word)
		}
		b := a
		if isRange {
			if b, err = strconv.ParseInt(last, 10, 64); err != nil || b < a {
				return nil, fmt.Errorf("token range %q: want first..last", word)
			}
		}
		if b-a >= maxTokens || int64(len(tokens))+b-a+1 > maxTokens {
			return nil, fmt.Errorf("more than %d tokens", maxTokens)
		}
		for t := a; t <= b; t++ {
			tokens = append(tokens, t)
		}
	}
	return tokens, nil
}
