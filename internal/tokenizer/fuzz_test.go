package tokenizer

import (
	"strings"
	"testing"
	"unicode/utf8"
)

// FuzzEncode: whatever the text, its ids spell it.
func FuzzEncode(f *testing.F) {
	for _, text := range []string{"", "Hello, world!", " \n\n\t x", "it's IT'ſ", "<|im_start|>user\r\n", "a\u0301 é 日本 \U0001f600 ½", "'", "café au lait"} {
		f.Add(text)
	}
	type speller struct {
		tok   *Tokenizer
		spell map[int64]string
	}
	var all []speller
	for _, name := range []string{"gpt2", "llama3"} { // without NFC, which changes the text
		tok := load(f, name)
		s := speller{tok, map[int64]string{}}
		for word, id := range tok.model.vocab {
			s.spell[id] = word
		}
		for _, a := range []*added{&tok.raw, &tok.normalized} {
			for _, tokens := range a.byFirst {
				for _, t := range tokens {
					s.spell[t.id] = t.content
				}
			}
		}
		all = append(all, s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		if !utf8.ValidString(text) {
			return
		}
		for _, s := range all {
			ids := s.tok.Encode(text)
			var b strings.Builder
			for _, id := range ids[len(s.tok.prefix):] {
				b.WriteString(s.spell[id])
			}
			if b.String() != text {
				t.Errorf("%q: %v spell %q", text, ids, b.String())
			}
		}
	})
}

// FuzzLoad: no file makes it panic, and what it takes can be used.
func FuzzLoad(f *testing.F) {
	for _, text := range []string{`{}`, `{"model":{"type":"BPE","vocab":{},"merges":[]}}`, `{"model":null,"pre_tokenizer":{"type":"Sequence","pretokenizers":[null,{}]}}`,
		`{"post_processor":{"type":"TemplateProcessing","single":[{}]}}`, `{"added_tokens":[{"content":"x"}]}`} {
		f.Add(text)
	}
	f.Fuzz(func(_ *testing.T, text string) {
		if tok, err := Load(strings.NewReader(text)); err == nil {
			tok.Encode("Hello, world! 123\n")
		}
	})
}
