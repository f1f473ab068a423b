package tokenizer

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"

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
	next := int64(len(t.model.texts))
	for _, a := range f.Added {
		if err := t.addToken(a, &next); err != nil {
			return nil, fmt.Errorf("added token %q: %w", a.Content, err)
		}
	}
	t.model.texts = nil
	return t, nil
}

// addToken adds a token. The Python package does not go by its id in the file: it takes
// the vocabulary's, or the next one that is free.
func (t *Tokenizer) addToken(a addedJSON, next *int64) error {
	if a.Content == "" {
		return nil
	}
	id, known := t.model.texts[a.Content]
	if !known {
		id = *next
		*next++
		t.model.texts[a.Content] = id
	}
	switch {
	case a.ID != id:
		return fmt.Errorf("id %d is not supported: the Python package would give it %d", a.ID, id)
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
