package tokenizer

import (
	"encoding/json"
	"fmt"
	"strings"
	"unicode/utf8"
)

// load reads a model, and turns its texts back into the bytes that they stand for.
func (b *bpe) load(raw json.RawMessage) error {
	if absent(raw) {
		return unsupported("none")
	}
	typ, err := typeOf(raw)
	if err != nil {
		return err
	}
	if typ != "BPE" {
		return unsupported(typ)
	}
	var m struct {
		Type         string            `json:"type"`
		Dropout      *float64          `json:"dropout"`
		Unk          *string           `json:"unk_token"`
		Prefix       *string           `json:"continuing_subword_prefix"`
		Suffix       *string           `json:"end_of_word_suffix"`
		FuseUnk      bool              `json:"fuse_unk"` // without unk_token of no effect
		ByteFallback bool              `json:"byte_fallback"`
		IgnoreMerges bool              `json:"ignore_merges"`
		Vocab        map[string]int64  `json:"vocab"`
		Merges       []json.RawMessage `json:"merges"`
	}
	if err := strict(raw, &m); err != nil {
		return err
	}
	empty := func(s *string) bool { return s == nil || *s == "" }
	if m.Dropout != nil && *m.Dropout != 0 || !empty(m.Unk) || !empty(m.Prefix) || !empty(m.Suffix) || m.ByteFallback {
		return unsupported("BPE with dropout, unk_token, byte_fallback, continuing_subword_prefix or end_of_word_suffix")
	}
	b.whole, b.texts = m.IgnoreMerges, m.Vocab
	b.vocab = make(map[string]int64, len(m.Vocab))
	alphabet := byteAlphabet()
	for text, id := range m.Vocab {
		if word, ok := bytesOf(text, alphabet); ok { // else an added token, which no word can be
			b.vocab[word] = id
		}
	}
	for c := range 256 {
		id, known := b.vocab[string([]byte{byte(c)})]
		if !known {
			return fmt.Errorf("no token for the byte 0x%02x: not a byte-level vocabulary", c)
		}
		b.bytes[c] = id
	}
	b.merges = make(map[pair]merge, len(m.Merges))
	for rank, raw := range m.Merges {
		if err := b.addMerge(raw, rank, alphabet); err != nil {
			return fmt.Errorf("merge %d: %w", rank, err)
		}
	}
	return nil
}

// addMerge reads "left right" or ["left", "right"].
func (b *bpe) addMerge(raw json.RawMessage, rank int, alphabet map[rune]byte) error {
	var two []string
	if json.Unmarshal(raw, &two) != nil {
		var text string
		if err := json.Unmarshal(raw, &text); err != nil {
			return err
		}
		two = strings.Split(text, " ")
	}
	if len(two) != 2 {
		return fmt.Errorf("%s: want two tokens", raw)
	}
	left, ok := bytesOf(two[0], alphabet)
	right, also := bytesOf(two[1], alphabet)
	l, lk := b.vocab[left]
	r, rk := b.vocab[right]
	id, known := b.vocab[left+right]
	if !ok || !also || !lk || !rk || !known {
		return fmt.Errorf("%s: not all in the vocabulary", raw)
	}
	if _, twice := b.merges[pair{l, r}]; twice {
		return fmt.Errorf("%s: a second time", raw)
	}
	b.merges[pair{l, r}] = merge{rank, id}
	return nil
}

// byteAlphabet are the characters that stand for bytes in a vocabulary: printable ones
// for themselves, the others for those from U+0100 on.
func byteAlphabet() map[rune]byte {
	alphabet := make(map[rune]byte, 256)
	next := rune(256)
	for c := range 256 {
		r := rune(c)
		if !(r >= '!' && r <= '~' || r >= '¡' && r <= '¬' || r >= '®' && r <= 'ÿ') {
			r = next
			next++
		}
		alphabet[r] = byte(c)
	}
	return alphabet
}

// bytesOf turns a token's text into its bytes; false when it is not of the alphabet.
func bytesOf(text string, alphabet map[rune]byte) (string, bool) {
	out := make([]byte, 0, utf8.RuneCountInString(text))
	for _, r := range text {
		c, ok := alphabet[r]
		if !ok {
			return "", false
		}
		out = append(out, c)
	}
	return string(out), true
}
