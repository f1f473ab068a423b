package tokenizer

import (
	"encoding/json"
	"os"
	"slices"
	"testing"
)

func load(t testing.TB, name string) *Tokenizer {
	t.Helper()
	f, err := os.Open("testdata/" + name + ".json")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	tok, err := Load(f)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return tok
}

// TestEncode_AsThePythonPackage: the ids are those recorded (testdata/record.py).
func TestEncode_AsThePythonPackage(t *testing.T) {
	b, err := os.ReadFile("testdata/ids.json")
	if err != nil {
		t.Fatal(err)
	}
	var rows []map[string]json.RawMessage
	if err := json.Unmarshal(b, &rows); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"gpt2", "llama3", "qwen2"} {
		tok := load(t, name)
		compared := 0
		for _, row := range rows {
			var text string
			want := []int64{}
			if err := json.Unmarshal(row["text"], &text); err != nil {
				t.Fatal(err)
			}
			if err := json.Unmarshal(row[name], &want); err != nil {
				t.Fatal(err)
			}
			if got := tok.Encode(text); !slices.Equal(got, want) {
				t.Errorf("%s: %q: %v, want %v", name, text, got, want)
			}
			compared++
		}
		if compared < 600 {
			t.Errorf("%s: %d texts compared", name, compared)
		}
	}
}
