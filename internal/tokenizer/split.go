package tokenizer

import (
	"strings"
	"unicode"
	"unicode/utf8"
)

// splitter returns the length of the first word of a text that is not empty. What it
// splits off is what one of the known regular expressions matches there; these use
// lookahead, which Go's regexp does not have, and match something everywhere.
type splitter func(text string) int

// The known expressions, as they stand in files.
const (
	// patternGPT2 is that of ByteLevel itself.
	patternGPT2 = `'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+`

	patternLlama3 = `(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+`
	patternQwen2  = `(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+`
)

// splitterOf is the splitter of an expression.
func splitterOf(pattern string) (splitter, bool) {
	switch pattern {
	case patternGPT2:
		return splitGPT2, true
	case patternLlama3:
		return func(text string) int { return splitNewer(text, 3) }, true
	case patternQwen2:
		return func(text string) int { return splitNewer(text, 1) }, true
	}
	return nil, false
}

// splitGPT2 splits as patternGPT2 does.
func splitGPT2(text string) int {
	if n := contraction(text, false); n > 0 {
		return n
	}
	body := strings.TrimPrefix(text, " ")
	space := len(text) - len(body)
	for _, class := range []func(rune) bool{isLetter, isNumber, isOther} {
		// With its space or, if it is none of the class that follows, without.
		if n := run(body, class, 0); n > 0 {
			return space + n
		}
	}
	return spaces(text)
}

// splitNewer splits as patternLlama3 and patternQwen2 do, which differ in how many digits
// are one word.
func splitNewer(text string, digits int) int {
	if n := contraction(text, true); n > 0 {
		return n
	}
	first, width := utf8.DecodeRuneInString(text)
	switch {
	case isLetter(first):
		return run(text, isLetter, 0)
	case isNumber(first):
		return run(text, isNumber, digits)
	case first != '\r' && first != '\n':
		if n := run(text[width:], isLetter, 0); n > 0 {
			return width + n
		}
	}
	body := strings.TrimPrefix(text, " ")
	if n := run(body, isOther, 0); n > 0 {
		n += len(text) - len(body)
		return n + run(text[n:], isNewline, 0)
	}
	blank := text[:run(text, unicode.IsSpace, 0)]
	if i := strings.LastIndexAny(blank, "\r\n"); i >= 0 {
		return i + 1
	}
	return spaces(text)
}

// spaces is the length of the white space at the beginning of a text, without its last
// character if something follows to which that belongs: \s+(?!\S)|\s+
func spaces(text string) int {
	n := run(text, unicode.IsSpace, 0)
	if n == len(text) {
		return n
	}
	_, last := utf8.DecodeLastRuneInString(text[:n])
	if n > last {
		return n - last
	}
	return n
}

// run is the length of the beginning of a text that is of one class, of at most so many
// characters if most is not 0.
func run(text string, class func(rune) bool, most int) int {
	count := 0
	for i, r := range text {
		if !class(r) || most > 0 && count == most {
			return i
		}
		count++
	}
	return len(text)
}

func isLetter(r rune) bool  { return unicode.IsLetter(r) }
func isNumber(r rune) bool  { return unicode.IsNumber(r) }
func isNewline(r rune) bool { return r == '\r' || r == '\n' }
func isOther(r rune) bool   { return !unicode.IsSpace(r) && !unicode.IsLetter(r) && !unicode.IsNumber(r) }

// contraction is the length of an English one (It's, we'll) at the beginning of a text.
// Without regard to case, the long s counts as one too, as Unicode has it.
func contraction(text string, anyCase bool) int {
	if text[0] != '\'' {
		return 0
	}
	for _, c := range []string{"s", "t", "re", "ve", "m", "ll", "d"} {
		rest := text[1:]
		if strings.HasPrefix(rest, c) || anyCase && len(rest) >= len(c) && strings.EqualFold(rest[:len(c)], c) {
			return 1 + len(c)
		}
	}
	const longS = "ſ"
	if anyCase && strings.HasPrefix(text[1:], longS) {
		return 1 + len(longS)
	}
	return 0
}
