package diskspace

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
)

func TestFree(t *testing.T) {
	free, err := Free(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	if free <= 0 || free > 1<<60 {
		t.Errorf("%d bytes free, want something a disk can have", free)
	}
	if _, err := Free(filepath.Join(t.TempDir(), "missing")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("missing path: %v, want os.ErrNotExist", err)
	}
}
