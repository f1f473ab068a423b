package main

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const aDiagnosis = `{"tokens":600,"profiles":[
 {"profile":"builtin@0","chunk_size":256,"full_chunks":2,"hit_chunks":1,"tried":true,"in_use":true,"instances":[{"instance_id":"a","location":"LocalCPUBackend","tokens":256,"suspect":true,"lossy":false},{"instance_id":"b","location":"L","tokens":256,"suspect":false,"lossy":true}]},
 {"profile":"builtin@seed=0","chunk_size":256,"full_chunks":2,"hit_chunks":0,"tried":true,"in_use":false,"instances":[]},
 {"profile":"sha256@seed=0","chunk_size":64,"full_chunks":9,"hit_chunks":9,"tried":false,"in_use":false,"instances":[{"instance_id":"c","location":"L","tokens":576,"suspect":false,"lossy":false}]}],
 "holders":[{"instance_id":"a","worker_id":1,"location":"LocalCPUBackend","profile":"builtin@0","chunk_size":256,"chunks":2,"prefix_chunks":1,"first_chunk":0}],
 "reasons":[{"code":"hit","detail":"instance \"a\" holds it","advice":"Nothing to do."},{"code":"prefix_only","detail":"the rest is not held","advice":"Look there."}]}`

func TestDiagnose(t *testing.T) {
	r := startReplica(t, 200, map[string]string{"/diagnose": aDiagnosis})
	code, out, errs := kvctrld("diagnose", "--tokens", "0..2", "--instance", "a", "--consistency", "linearizable", "--addr", r.URL)
	if code != 0 {
		t.Fatalf("exit %d: %s", code, errs)
	}
	if want := `POST /diagnose?consistency=linearizable {"instance_id":"a","tokens":[0,1,2]}`; r.got[0] != want {
		t.Errorf("asked %q, want %q", r.got[0], want)
	}
	const want = `1. hit: instance "a" holds it
   Nothing to do.
2. prefix_only: the rest is not held
   Look there.

PROFILE        CHUNK  HELD           LOOKUPS        INSTANCE  LOCATION         TOKENS  NOTE
builtin@0      256    1 of 2 chunks  use it         a         LocalCPUBackend  256     silent
builtin@0      256    1 of 2 chunks  use it         b         L                256     events lost
sha256@seed=0  64     9 of 9 chunks  do not try it  c         L                576     
1 further profile finds nothing of the 600 tokens

INSTANCE  WORKER  LOCATION         PROFILE    CHUNK  FROM THE FIRST  IN ALL  FIRST
a         1       LocalCPUBackend  builtin@0  256    1               2       1
`
	if out != want {
		t.Errorf("%s\nwant\n%s", out, want)
	}
	if code, out, _ := kvctrld("diagnose", "--tokens", "1", "--json", "--addr", r.URL); code != 0 || out != aDiagnosis+"\n" {
		t.Errorf("exit %d, %s", code, out)
	}
}

// TestDiagnose_OfNothing: no table without rows.
func TestDiagnose_OfNothing(t *testing.T) {
	r := startReplica(t, 200, map[string]string{"/diagnose": `{"tokens":1,"profiles":[{"profile":"builtin@0","chunk_size":256,"in_use":true,"instances":[]}],"holders":[],"reasons":[{"code":"short_prompt","detail":"d","advice":"a"}]}`})
	code, out, errs := kvctrld("diagnose", "--tokens", "1", "--addr", r.URL)
	if code != 0 || strings.Contains(out, "WORKER") || !strings.Contains(out, "builtin@0  256    0 of 0 chunks  use it") {
		t.Errorf("exit %d: %s%s", code, out, errs)
	}
}

// TestDiagnose_Text: text goes to a vLLM server, or by way of a tokenizer.json.
func TestDiagnose_Text(t *testing.T) {
	file := filepath.Join(t.TempDir(), "prompt.txt")
	if err := os.WriteFile(file, []byte("héllo\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	const tokenizers = "../../internal/tokenizer/testdata/"
	for _, c := range []struct {
		name string
		args []string
		body string // that /diagnose gets
	}{
		{"a server", []string{"--text", "@" + file, "--tokenize-url", "URL"}, `{"tokens":[5,6,7]}`},
		{"its route", []string{"--text", "@" + file, "--tokenize-url", "URL/tokenize"}, `{"tokens":[5,6,7]}`},
		{"a file", []string{"--text", "a b", "--tokenizer", tokenizers + "gpt2.json"}, `{"tokens":[67,284]}`},
		{"a file with a token for the beginning", []string{"--text", "a", "--tokenizer", tokenizers + "llama3.json"}, `{"tokens":[0,67]}`},
		{"a chat, by a file", []string{"--text", "<|begin_of_text|>a", "--no-special-tokens", "--tokenizer", tokenizers + "llama3.json"}, `{"tokens":[0,67]}`},
		{"a chat, by a server", []string{"--text", "x", "--no-special-tokens", "--tokenize-url", "URL"}, `{"tokens":[5,6,7]}`},
		{"standard input", []string{"--text", "-", "--tokenizer", tokenizers + "gpt2.json"}, `{"tokens":[67]}`},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := startReplica(t, 200, map[string]string{"/diagnose": aDiagnosis, "/tokenize": `{"count":3,"max_model_len":99,"tokens":[5,6,7],"token_strs":null}`})
			args := append([]string{"diagnose", "--addr", r.URL}, c.args...)
			for i := range args {
				args[i] = strings.Replace(args[i], "URL", r.URL, 1)
			}
			root := newRoot()
			root.SetArgs(args)
			root.SetIn(strings.NewReader("a"))
			root.SetOut(&bytes.Buffer{})
			if err := root.ExecuteContext(context.Background()); err != nil {
				t.Fatal(err)
			}
			if got := r.got[len(r.got)-1]; got != "POST /diagnose? "+c.body && got != "POST /diagnose "+c.body {
				t.Errorf("asked %q, want %s", got, c.body)
			}
			asked := `POST /tokenize {"prompt":"héllo\n"}`
			if slices.Contains(c.args, "--no-special-tokens") {
				asked = `POST /tokenize {"add_special_tokens":false,"prompt":"x"}`
			}
			if strings.Contains(c.args[len(c.args)-1], "URL") && r.got[0] != asked {
				t.Errorf("tokenized %q, want %s", r.got[0], asked)
			}
		})
	}
}

func TestDiagnose_WrongLines(t *testing.T) {
	notUTF8 := filepath.Join(t.TempDir(), "x")
	if err := os.WriteFile(notUTF8, []byte{0xff}, 0o600); err != nil {
		t.Fatal(err)
	}
	other := filepath.Join(t.TempDir(), "tokenizer.json")
	if err := os.WriteFile(other, []byte(`{"model":{"type":"Unigram"}}`), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		args []string
		want string
	}{
		{nil, "at least one of the flags in the group [tokens text]"},
		{[]string{"--tokens", "1", "--text", "x"}, "none of the others can be"},
		{[]string{"--text", "x"}, "--text goes with --tokenizer FILE or --tokenize-url URL"},
		{[]string{"--tokens", "1", "--tokenizer", "x"}, "--text goes with"},
		{[]string{"--text", "x", "--tokenizer", "a", "--tokenize-url", "b"}, "none of the others can be"},
		{[]string{"--tokens", "1", "--no-special-tokens"}, "none of the others can be"},
		{[]string{"--tokens", "x"}, `token "x" is no whole number`},
		{[]string{"--text", "@/nowhere", "--tokenizer", "x"}, "text: open /nowhere"},
		{[]string{"--text", "@" + notUTF8, "--tokenizer", "x"}, "text: not UTF-8"},
		{[]string{"--text", "x", "--tokenizer", "/nowhere"}, "--tokenizer: open /nowhere"},
		{[]string{"--text", "x", "--tokenizer", other}, `"Unigram" is not supported`},
		{[]string{"--text", "x", "--tokenize-url", "ftp://x"}, "--tokenize-url: "},
	} {
		code, _, errs := kvctrld(append([]string{"diagnose"}, c.args...)...)
		if code != exitConfig || !strings.Contains(errs, c.want) {
			t.Errorf("%q: exit %d, %s; want %s", c.args, code, errs, c.want)
		}
	}
}

// TestDiagnose_Tokenize: what a server may answer instead of token ids.
func TestDiagnose_Tokenize(t *testing.T) {
	for _, c := range []struct {
		status int
		body   string
		want   string
	}{
		{404, `{"detail":"Not Found"}`, "/tokenize: Not Found (404)"},
		{200, `{"token_ids":[1]}`, "the answer has no list of tokens"},
		{200, `<html>`, "the answer has no list of tokens"},
		{200, `{"tokens":["a"]}`, "the answer has no list of tokens"},
	} {
		r := startReplica(t, c.status, map[string]string{"/tokenize": c.body})
		code, _, errs := kvctrld("diagnose", "--text", "x", "--tokenize-url", r.URL)
		if code != exitFailed || !strings.Contains(errs, c.want) {
			t.Errorf("%d %s: exit %d, %s; want %s", c.status, c.body, code, errs, c.want)
		}
	}
	code, _, errs := kvctrld("diagnose", "--text", "x", "--tokenize-url", deadAddr(t))
	if code != exitFailed || !strings.Contains(errs, "give them with --tokens") {
		t.Errorf("exit %d, %s", code, errs)
	}
}
