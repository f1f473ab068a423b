// Package tokenizer turns text into token ids by a Hugging Face tokenizer.json, for the
// family of tokenizers that most models served by vLLM have: byte-level BPE with the way
// of splitting of GPT-2, Llama 3 or Qwen 2. It takes nothing else: a file with any part
// that it does not know exactly is refused by name, because a wrong token id early in a
// prompt changes the key of every chunk, and a diagnosis of it would mislead.
//
//	t, err := tokenizer.Load(file)
//	ids := t.Encode("text of a completion")
//	ids = t.EncodeBare("text that a chat template has made")
//
// The ids are those of the Python package tokenizers, with or without the special tokens
// that the file adds (the beginning of a text for Llama 3): testdata/record.py has
// recorded some.
// DESIGN.md says why this is not a library.
//
// Callers: cmd/kvctrld, for its --text. No goroutines; a Tokenizer is immutable and may
// be used by several.
package tokenizer
