package tokenizer

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"unicode/utf8"

	"golang.org/x/text/unicode/norm"
)

// maxFile bounds a tokenizer.json: the largest have some 30 MB.
const maxFile = 128 << 20

// file is a tokenizer.json. Truncation and padding are left out: those who serve models
// set them for each call. The decoder is for the way back.
type file struct {
	Added         []addedJSON     `json:"added_tokens"`
	Normalizer    json.RawMessage `json:"normalizer"`
	PreTokenizer  json.RawMessage `json:"pre_tokenizer"`
	PostProcessor json.RawMessage `json:"post_processor"`
	Model         json.RawMessage `json:"model"`
}

type addedJSON struct {
	ID         int64  `json:"id"`
	Content    string `json:"content"`
	SingleWord bool   `json:"single_word"`
	Lstrip     bool   `json:"lstrip"`
	Rstrip     bool   `json:"rstrip"`
	Normalized bool   `json:"normalized"`
}

// Load reads a tokenizer.json. Its error names the first part that is not one that this
// package knows.
func Load(r io.Reader) (*Tokenizer, error) {
	b, err := io.ReadAll(io.LimitReader(r, maxFile+1))
	if err != nil {
		return nil, err
	}
	if len(b) > maxFile {
		return nil, fmt.Errorf("more than %d bytes: no tokenizer.json", maxFile)
	}
	var f file
	if err := json.Unmarshal(b, &f); err != nil {
		return nil, fmt.Errorf("no tokenizer.json: %w", err)
	}
	t := &Tokenizer{}
	for _, step := range []struct {
		name string
		load func(json.RawMessage) error
		raw  json.RawMessage
	}{
		{"model", t.model.load, f.Model}, {"normalizer", t.loadNormalizer, f.Normalizer},
		{"pre_tokenizer", t.loadPreTokenizer, f.PreTokenizer}, {"post_processor", t.loadPostProcessor, f.PostProcessor},
	} {
		if err := step.load(step.raw); err != nil {
			return nil, fmt.Errorf("%s: %w", step.name, err)
		}
	}
	for _, a := range f.Added {
		if err := t.addToken(a); err != nil {
			return nil, fmt.Errorf("added token %q: %w", a.Content, err)
		}
	}
	return t, nil
}

func (t *Tokenizer) addToken(a addedJSON) error {
	switch {
	case a.Content == "":
		return nil
	case a.SingleWord || a.Lstrip || a.Rstrip:
		return errors.New("single_word, lstrip and rstrip are not supported")
	case !a.Normalized:
		t.raw.add(a.Content, a.ID)
	case t.nfc:
		t.normalized.add(norm.NFC.String(a.Content), a.ID)
	default:
		t.normalized.add(a.Content, a.ID)
	}
	return nil
}

// strict decodes a part and refuses fields that are not known.
func strict(raw json.RawMessage, v any) error {
	d := json.NewDecoder(bytes.NewReader(raw))
	d.DisallowUnknownFields()
	return d.Decode(v)
}

// absent reports a part that is not there.
func absent(raw json.RawMessage) bool { return len(raw) == 0 || string(raw) == "null" }

func typeOf(raw json.RawMessage) (string, error) {
	var v struct {
		Type string `json:"type"`
	}
	err := json.Unmarshal(raw, &v)
	return v.Type, err
}

func unsupported(typ string) error {
	return fmt.Errorf("%q is not supported: known are byte-level BPE tokenizers split as GPT-2's, Llama 3's or Qwen 2's", typ)
}

func (t *Tokenizer) loadNormalizer(raw json.RawMessage) error {
	if absent(raw) {
		return nil
	}
	typ, err := typeOf(raw)
	switch {
	case err != nil:
		return err
	case typ != "NFC":
		return unsupported(typ)
	}
	t.nfc = true
	return nil
}

type byteLevelJSON struct {
	Type           string `json:"type"`
	AddPrefixSpace bool   `json:"add_prefix_space"`
	TrimOffsets    bool   `json:"trim_offsets"` // of offsets, which nobody asks for
	UseRegex       *bool  `json:"use_regex"`    // true if it is not there
}

func (t *Tokenizer) loadPreTokenizer(raw json.RawMessage) error {
	if absent(raw) {
		return unsupported("none")
	}
	typ, err := typeOf(raw)
	if err != nil {
		return err
	}
	switch typ {
	case "ByteLevel":
		regex, err := loadByteLevel(raw)
		if err != nil {
			return err
		}
		if !regex {
			return unsupported("ByteLevel without use_regex")
		}
		t.split = splitGPT2
		return nil
	case "Sequence":
		var seq struct {
			Type string            `json:"type"`
			List []json.RawMessage `json:"pretokenizers"`
		}
		if err := strict(raw, &seq); err != nil {
			return err
		}
		if len(seq.List) != 2 {
			return unsupported(fmt.Sprintf("Sequence of %d", len(seq.List)))
		}
		if err := t.loadSplit(seq.List[0]); err != nil {
			return err
		}
		regex, err := loadByteLevel(seq.List[1])
		if err == nil && regex {
			err = unsupported("Split and ByteLevel with use_regex")
		}
		return err
	}
	return unsupported(typ)
}

func loadByteLevel(raw json.RawMessage) (regex bool, err error) {
	typ, err := typeOf(raw)
	if err != nil {
		return false, err
	}
	if typ != "ByteLevel" {
		return false, unsupported(typ)
	}
	var b byteLevelJSON
	if err := strict(raw, &b); err != nil {
		return false, err
	}
	if b.AddPrefixSpace {
		return false, unsupported("ByteLevel with add_prefix_space")
	}
	return b.UseRegex == nil || *b.UseRegex, nil
}

func (t *Tokenizer) loadSplit(raw json.RawMessage) error {
	typ, err := typeOf(raw)
	if err != nil {
		return err
	}
	if typ != "Split" {
		return unsupported(typ)
	}
	var s struct {
		Type    string `json:"type"`
		Pattern struct {
			Regex string
		} `json:"pattern"`
		Behavior string `json:"behavior"`
		Invert   bool   `json:"invert"`
	}
	if err := strict(raw, &s); err != nil {
		return err
	}
	split, known := splitterOf(s.Pattern.Regex)
	if !known || s.Behavior != "Isolated" || s.Invert {
		return unsupported("Split by " + s.Pattern.Regex)
	}
	t.split = split
	return nil
}

func (t *Tokenizer) loadPostProcessor(raw json.RawMessage) error {
	if absent(raw) {
		return nil
	}
	typ, err := typeOf(raw)
	if err != nil {
		return err
	}
	switch typ {
	case "ByteLevel": // of offsets
		return nil
	case "Sequence":
		var seq struct {
			Type string            `json:"type"`
			List []json.RawMessage `json:"processors"`
		}
		if err := strict(raw, &seq); err != nil {
			return err
		}
		for _, p := range seq.List {
			if err := t.loadPostProcessor(p); err != nil {
				return err
			}
		}
		return nil
	case "TemplateProcessing":
		return t.loadTemplate(raw)
	}
	return unsupported(typ)
}

func (t *Tokenizer) loadTemplate(raw json.RawMessage) error {
	var tpl struct {
		Type   string `json:"type"`
		Single []struct {
			SpecialToken *struct {
				ID string `json:"id"`
			}
			Sequence *struct {
				ID string `json:"id"`
			}
		} `json:"single"`
		Special map[string]struct {
			IDs []int64 `json:"ids"`
		} `json:"special_tokens"`
	}
	if err := json.Unmarshal(raw, &tpl); err != nil {
		return err
	}
	var before, after []int64
	texts := 0
	for _, piece := range tpl.Single {
		switch {
		case piece.Sequence != nil && piece.SpecialToken == nil:
			texts++
		case piece.SpecialToken != nil && piece.Sequence == nil:
			special, known := tpl.Special[piece.SpecialToken.ID]
			if !known {
				return fmt.Errorf("template names special token %q, which it does not list", piece.SpecialToken.ID)
			}
			if texts == 0 {
				before = append(before, special.IDs...)
			} else {
				after = append(after, special.IDs...)
			}
		default:
			return unsupported("TemplateProcessing of other pieces")
		}
	}
	if texts != 1 {
		return unsupported(fmt.Sprintf("TemplateProcessing with a text %d times", texts))
	}
	t.prefix = append(before, t.prefix...)
	t.suffix = append(t.suffix, after...)
	return nil
}

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
	b.whole = m.IgnoreMerges
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
