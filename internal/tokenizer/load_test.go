package tokenizer

import (
	"encoding/json"
	"os"
	"slices"
	"strings"
	"testing"
)

// changed is a tokenizer.json of testdata with a change to its decoded form.
func changed(t *testing.T, name string, change func(f map[string]any)) string {
	t.Helper()
	b, err := os.ReadFile("testdata/" + name + ".json")
	if err != nil {
		t.Fatal(err)
	}
	var f map[string]any
	if err := json.Unmarshal(b, &f); err != nil {
		t.Fatal(err)
	}
	change(f)
	if b, err = json.Marshal(f); err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// in goes down into a file's objects and lists.
func in(v any, path ...any) map[string]any {
	for _, p := range path {
		switch p := p.(type) {
		case string:
			v = v.(map[string]any)[p]
		case int:
			v = v.([]any)[p]
		}
	}
	return v.(map[string]any)
}

// TestLoad_RefusesWhatItDoesNotKnow: each part that is different in a way that could make
// other ids.
func TestLoad_RefusesWhatItDoesNotKnow(t *testing.T) {
	for _, c := range []struct {
		name, file string
		change     func(f map[string]any)
		want       string
	}{
		{"another model", "gpt2", func(f map[string]any) { in(f, "model")["type"] = "Unigram" }, `model: "Unigram" is not supported`},
		{"no model", "gpt2", func(f map[string]any) { delete(f, "model") }, "model: "},
		{"byte fallback", "gpt2", func(f map[string]any) { in(f, "model")["byte_fallback"] = true }, "byte_fallback"},
		{"unknown tokens", "gpt2", func(f map[string]any) { in(f, "model")["unk_token"] = "<unk>" }, "unk_token"},
		{"dropout", "gpt2", func(f map[string]any) { in(f, "model")["dropout"] = 0.5 }, "dropout"},
		{"an ending of words", "gpt2", func(f map[string]any) { in(f, "model")["end_of_word_suffix"] = "</w>" }, "end_of_word_suffix"},
		{"a new setting", "gpt2", func(f map[string]any) { in(f, "model")["surprise"] = true }, `unknown field "surprise"`},
		{"no byte-level vocabulary", "gpt2", func(f map[string]any) { delete(in(f, "model", "vocab"), "Ġ") }, "no token for the byte 0x20"},
		{"a merge of unknown tokens", "gpt2", func(f map[string]any) { in(f, "model")["merges"] = []any{[]any{"a", "ЖЖ"}} }, "merge 0: "},
		{"a merge of three", "gpt2", func(f map[string]any) { in(f, "model")["merges"] = []any{"a b c"} }, "want two tokens"},
		{"a merge twice", "gpt2", func(f map[string]any) {
			m := in(f, "model")["merges"].([]any)
			in(f, "model")["merges"] = append(m, m[0])
		}, "a second time"},
		{"another normalizer", "gpt2", func(f map[string]any) { f["normalizer"] = map[string]any{"type": "NFKC"} }, `normalizer: "NFKC"`},
		{"no splitting", "gpt2", func(f map[string]any) { f["pre_tokenizer"] = nil }, "pre_tokenizer: "},
		{"another splitting", "gpt2", func(f map[string]any) { f["pre_tokenizer"] = map[string]any{"type": "Metaspace"} }, `"Metaspace"`},
		{"a space before the text", "gpt2", func(f map[string]any) { in(f, "pre_tokenizer")["add_prefix_space"] = true }, "add_prefix_space"},
		{"bytes only", "gpt2", func(f map[string]any) { in(f, "pre_tokenizer")["use_regex"] = false }, "without use_regex"},
		{"another expression", "llama3", func(f map[string]any) {
			in(f, "pre_tokenizer", "pretokenizers", 0, "pattern")["Regex"] = `\w+`
		}, `"Split by \\w+" is not supported`},
		{"a text instead of an expression", "llama3", func(f map[string]any) {
			in(f, "pre_tokenizer", "pretokenizers", 0)["pattern"] = map[string]any{"String": patternLlama3}
		}, "String"},
		{"split and thrown away", "llama3", func(f map[string]any) {
			in(f, "pre_tokenizer", "pretokenizers", 0)["behavior"] = "Removed"
		}, "Split by"},
		{"split twice", "llama3", func(f map[string]any) {
			in(f, "pre_tokenizer", "pretokenizers", 1)["use_regex"] = true
		}, "use_regex"},
		{"three steps", "llama3", func(f map[string]any) {
			l := in(f, "pre_tokenizer")["pretokenizers"].([]any)
			in(f, "pre_tokenizer")["pretokenizers"] = append(l, l[0])
		}, "Sequence of 3"},
		{"steps the other way round", "llama3", func(f map[string]any) {
			slices.Reverse(in(f, "pre_tokenizer")["pretokenizers"].([]any))
		}, `"ByteLevel" is not supported`},
		{"another end", "gpt2", func(f map[string]any) { f["post_processor"] = map[string]any{"type": "RobertaProcessing"} }, `post_processor: "RobertaProcessing"`},
		{"a template without a text", "llama3", func(f map[string]any) {
			p := in(f, "post_processor", "processors", 1)
			p["single"] = p["single"].([]any)[:1]
		}, "a text 0 times"},
		{"a template with a token that is not there", "llama3", func(f map[string]any) {
			in(f, "post_processor", "processors", 1)["special_tokens"] = map[string]any{}
		}, "does not list"},
		{"an added token with another id than the vocabulary's", "gpt2", func(f map[string]any) { in(f, "added_tokens", 0)["id"] = 5 }, `added token "<|begin_of_text|>": id 5 is not supported: the Python package would give it 0`},
		{"an added token with an id further on", "gpt2", func(f map[string]any) { in(f, "added_tokens", 4)["id"] = 5000 }, "would give it 701"},
		{"a token that takes the space before it", "gpt2", func(f map[string]any) { in(f, "added_tokens", 0)["lstrip"] = true }, `added token "<|begin_of_text|>": `},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := Load(strings.NewReader(changed(t, c.file, c.change)))
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%v, want %q in it", err, c.want)
			}
		})
	}
	for _, text := range []string{"", "[]", `{"model":`, "{}"} {
		if _, err := Load(strings.NewReader(text)); err == nil {
			t.Errorf("%q taken", text)
		}
	}
}

// TestLoad_Same: what differs in form only is taken.
func TestLoad_Same(t *testing.T) {
	const text = "Hello, world! 12345 it's\n"
	want := load(t, "gpt2").Encode(text)
	for name, change := range map[string]func(f map[string]any){
		"merges as texts": func(f map[string]any) {
			m := in(f, "model")["merges"].([]any)
			for i, x := range m {
				if two, ok := x.([]any); ok {
					m[i] = two[0].(string) + " " + two[1].(string)
				} else {
					a, b, _ := strings.Cut(x.(string), " ")
					m[i] = []any{a, b}
				}
			}
		},
		"use_regex not named": func(f map[string]any) { delete(in(f, "pre_tokenizer"), "use_regex") },
		"no end":              func(f map[string]any) { delete(f, "post_processor") },
		"cut to a length":     func(f map[string]any) { f["truncation"] = map[string]any{"max_length": 3} },
		"GPT-2's expression by name": func(f map[string]any) {
			f["pre_tokenizer"] = map[string]any{"type": "Sequence", "pretokenizers": []any{
				map[string]any{"type": "Split", "pattern": map[string]any{"Regex": patternGPT2}, "behavior": "Isolated", "invert": false},
				map[string]any{"type": "ByteLevel", "add_prefix_space": false, "use_regex": false},
			}}
		},
	} {
		tok, err := Load(strings.NewReader(changed(t, "gpt2", change)))
		if err != nil {
			t.Errorf("%s: %v", name, err)
		} else if got := tok.Encode(text); !slices.Equal(got, want) {
			t.Errorf("%s: %v, want %v", name, got, want)
		}
	}
}

// TestEncode_Suffix: special tokens after the text.
func TestEncode_Suffix(t *testing.T) {
	tok, err := Load(strings.NewReader(changed(t, "llama3", func(f map[string]any) {
		p := in(f, "post_processor", "processors", 1)
		slices.Reverse(p["single"].([]any))
	})))
	if err != nil {
		t.Fatal(err)
	}
	before, after := load(t, "llama3").Encode("hi"), tok.Encode("hi")
	if n := len(before); len(after) != n || before[0] != after[n-1] || !slices.Equal(before[1:], after[:n-1]) {
		t.Errorf("%v, and with the token at the end %v", before, after)
	}
}

// TestEncodeBare: a chat template has written the beginning into the text itself.
func TestEncodeBare(t *testing.T) {
	tok := load(t, "llama3")
	if got, want := tok.EncodeBare("<|begin_of_text|>hi"), tok.Encode("hi"); !slices.Equal(got, want) || len(got) < 2 || got[0] == got[1] {
		t.Errorf("%v, want %v", got, want)
	}
}

func BenchmarkEncode(b *testing.B) {
	tok := load(b, "llama3")
	text := strings.Repeat("The quick brown fox jumps over the lazy dog, 12345 times.\n", 200)
	b.SetBytes(int64(len(text)))
	for b.Loop() {
		if len(tok.Encode(text)) < 1000 {
			b.Fatal("too few")
		}
	}
}
