package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"unicode/utf8"

	"github.com/spf13/cobra"

	"github.com/kvctrl/kvctrl/internal/tokenizer"
)

// maxText bounds a prompt given as text, in bytes.
const maxText = 16 << 20

// promptArgs are the ways to give a prompt: token ids, or text and who turns it into them.
type promptArgs struct {
	tokens, text, tokenizer, tokenizeURL string
	bare                                 bool // no special tokens are added
}

func (p *promptArgs) flags(cmd *cobra.Command) {
	cmd.Flags().StringVar(&p.tokens, "tokens", "", "the prompt's token ids: 1,2,3, 0..1023, @FILE or -")
	cmd.Flags().StringVar(&p.text, "text", "", "the prompt as text, @FILE or -, with --tokenizer or --tokenize-url")
	cmd.Flags().StringVar(&p.tokenizer, "tokenizer", "", "the model's tokenizer.json, which turns --text into token ids (byte-level BPE, as of Llama 3 and Qwen; others are refused)")
	cmd.Flags().StringVar(&p.tokenizeURL, "tokenize-url", "", "a vLLM server, such as http://vllm-0:8000, whose POST /tokenize turns --text into token ids")
	cmd.Flags().BoolVar(&p.bare, "no-special-tokens", false, "add none to --text: the chat template has written them into it already (else Llama 3's beginning would stand there twice)")
	cmd.MarkFlagsMutuallyExclusive("tokens", "text")
	cmd.MarkFlagsMutuallyExclusive("tokens", "no-special-tokens")
	cmd.MarkFlagsOneRequired("tokens", "text")
	cmd.MarkFlagsMutuallyExclusive("tokenizer", "tokenize-url")
}

// read returns the prompt's token ids.
func (p *promptArgs) read(cmd *cobra.Command, r *remote) ([]int64, error) {
	if asText := cmd.Flags().Changed("text"); asText != (p.tokenizer != "" || p.tokenizeURL != "") {
		return nil, &exitError{code: exitConfig, err: errors.New("--text goes with --tokenizer FILE or --tokenize-url URL, and these with it: token ids are what engines hash")}
	} else if !asText {
		tokens, err := readTokens(p.tokens, cmd.InOrStdin())
		if err != nil {
			return nil, &exitError{code: exitConfig, err: err}
		}
		return tokens, nil
	}
	text, err := readText(p.text, cmd.InOrStdin())
	if err != nil {
		return nil, &exitError{code: exitConfig, err: err}
	}
	if p.tokenizer != "" {
		return p.encode(text)
	}
	ctx, cancel := context.WithTimeout(cmd.Context(), r.timeout)
	defer cancel()
	return p.tokenize(ctx, text)
}

// readText reads "@FILE", "-" for standard input, or takes the text itself.
func readText(arg string, stdin io.Reader) (string, error) {
	from := io.Reader(strings.NewReader(arg))
	switch {
	case arg == "-":
		from = stdin
	case strings.HasPrefix(arg, "@"):
		f, err := os.Open(arg[1:])
		if err != nil {
			return "", fmt.Errorf("text: %w", err)
		}
		defer f.Close()
		from = f
	}
	b, err := io.ReadAll(io.LimitReader(from, maxText+1))
	switch {
	case err != nil:
		return "", fmt.Errorf("text: %w", err)
	case len(b) > maxText:
		return "", fmt.Errorf("text: more than %d bytes", maxText)
	case !utf8.Valid(b):
		return "", errors.New("text: not UTF-8")
	}
	return string(b), nil
}

// encode turns a text into token ids by a tokenizer.json.
func (p *promptArgs) encode(text string) ([]int64, error) {
	f, err := os.Open(p.tokenizer)
	if err != nil {
		return nil, &exitError{code: exitConfig, err: fmt.Errorf("--tokenizer: %w", err)}
	}
	defer f.Close()
	t, err := tokenizer.Load(f)
	if err != nil {
		return nil, &exitError{code: exitConfig, err: fmt.Errorf("--tokenizer %s: %w; ask an engine instead: --tokenize-url http://HOST:8000, or POST its /tokenize and give --tokens", p.tokenizer, err)}
	}
	if p.bare {
		return t.EncodeBare(text), nil
	}
	return t.Encode(text), nil
}

// tokenize asks a vLLM server for the token ids of a text, with the special tokens that
// its completions add, if any.
func (p *promptArgs) tokenize(ctx context.Context, text string) ([]int64, error) {
	base, err := restURL(p.tokenizeURL)
	if err != nil {
		return nil, &exitError{code: exitConfig, err: fmt.Errorf("--tokenize-url: %w", err)}
	}
	target := strings.TrimSuffix(base, "/tokenize") + "/tokenize"
	ask := map[string]any{"prompt": text}
	if p.bare {
		ask["add_special_tokens"] = false
	}
	body, err := json.Marshal(ask)
	if err != nil {
		return nil, fmt.Errorf("encode text: %w", err)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, target, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", "application/json")
	transport := http.DefaultTransport.(*http.Transport).Clone()
	defer transport.CloseIdleConnections()
	resp, err := (&http.Client{Transport: transport}).Do(req)
	if err != nil {
		return nil, fmt.Errorf("token ids: %w: give them with --tokens, or name another server", err)
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		return nil, fmt.Errorf("token ids from %s: %w", target, err)
	}
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("token ids from %s: %w", target, readAnswerError(resp.StatusCode, answer))
	}
	var got struct {
		Tokens *[]int64 `json:"tokens"`
	}
	if err := json.Unmarshal(answer, &got); err != nil || got.Tokens == nil {
		return nil, fmt.Errorf("token ids from %s: the answer has no list of tokens: is it a vLLM server?", target)
	}
	return *got.Tokens, nil
}
