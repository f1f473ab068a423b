package cluster

import (
	"context"
	"encoding/json"
	"fmt"
)

// ask asks a replica in JSON: question and answer may be nil.
func (n *Node) ask(ctx context.Context, to peerTarget, path string, question, answer any) error {
	var body []byte
	if question != nil {
		body = mustMarshal(question)
	}
	got, err := n.callPeer(ctx, to, path, body)
	if err != nil || answer == nil {
		return err
	}
	if err := json.Unmarshal(got, answer); err != nil {
		return fmt.Errorf("answer of %v to %s: %w", to, path, err)
	}
	return nil
}

// mustMarshal is for our own structs of texts and numbers.
func mustMarshal(v any) []byte {
	b, err := json.Marshal(v)
	if err != nil {
		panic(fmt.Sprintf("bug: %T has no JSON: %v", v, err))
	}
	return b
}

// unmarshal reads what another replica asks.
func unmarshal(body []byte, v any) error {
	if err := json.Unmarshal(body, v); err != nil {
		return fmt.Errorf("%w: request: %w", ErrInvalid, err)
	}
	return nil
}
