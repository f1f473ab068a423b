package tokenizer

import (
	"slices"
	"strings"

	"golang.org/x/text/unicode/norm"
)

// Tokenizer is a tokenizer.json. Load makes it.
type Tokenizer struct {
	raw        added // tokens matched in the text as it is
	normalized added // and those matched after normalization
	nfc        bool  // the text is brought to Unicode's form NFC
	split      splitter
	model      bpe
	prefix     []int64 // special tokens before a text
	suffix     []int64 // and after it
}

// Encode returns the ids of a text, with the special tokens that every text gets. The
// text must be valid UTF-8.
//
// Cost: a few microseconds for each token, and the memory of the ids.
func (t *Tokenizer) Encode(text string) []int64 {
	return append(t.append(slices.Clone(t.prefix), text), t.suffix...)
}

// EncodeBare returns the ids of a text alone: a chat template has written the special
// tokens into it already.
func (t *Tokenizer) EncodeBare(text string) []int64 { return t.append(nil, text) }

func (t *Tokenizer) append(ids []int64, text string) []int64 {
	t.raw.cut(text, func(id int64) { ids = append(ids, id) }, func(piece string) {
		if t.nfc {
			piece = norm.NFC.String(piece)
		}
		t.normalized.cut(piece, func(id int64) { ids = append(ids, id) }, func(piece string) {
			for piece != "" {
				n := t.split(piece)
				ids = t.model.append(ids, piece[:n])
				piece = piece[n:]
			}
		})
	})
	return ids
}

// added are tokens that are found in a text whole, before anything else is done to it.
type added struct {
	byFirst [256][]addedToken // by their first byte, the longest first
	any     bool
}

type addedToken struct {
	content string
	id      int64
}

func (a *added) add(content string, id int64) {
	first := content[0]
	a.any = true
	a.byFirst[first] = append(a.byFirst[first], addedToken{content, id})
	slices.SortStableFunc(a.byFirst[first], func(x, y addedToken) int { return len(y.content) - len(x.content) })
}

// cut goes through a text from left to right, and calls one for each added token, the
// longest that stands there, and rest for what is between them.
func (a *added) cut(text string, one func(id int64), rest func(piece string)) {
	from := 0
	if a.any {
		for i := 0; i < len(text); {
			tok, found := a.at(text[i:])
			if !found {
				i++
				continue
			}
			if from < i {
				rest(text[from:i])
			}
			one(tok.id)
			i += len(tok.content)
			from = i
		}
	}
	if from < len(text) {
		rest(text[from:])
	}
}

func (a *added) at(text string) (addedToken, bool) {
	for _, t := range a.byFirst[text[0]] {
		if strings.HasPrefix(text, t.content) {
			return t, true
		}
	}
	return addedToken{}, false
}
