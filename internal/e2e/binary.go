package e2e

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
)

// built is the one binary of this test process.
var built struct {
	once sync.Once
	dir  string
	path string
	err  error
}

// Run runs the tests and removes the binary afterwards. For TestMain.
func Run(m *testing.M) int {
	code := m.Run()
	if built.dir != "" {
		if err := os.RemoveAll(built.dir); err != nil {
			fmt.Fprintln(os.Stderr, "remove the built binary:", err)
			return 1
		}
	}
	return code
}

// Binary builds cmd/kvctrld, once for all tests of the process and with the race
// detector when the tests have it, and returns the path.
func Binary(t testing.TB) string {
	t.Helper()
	built.once.Do(build)
	if built.err != nil {
		t.Fatalf("build kvctrld: %v", built.err)
	}
	return built.path
}

func build() {
	root, err := moduleRoot()
	if err != nil {
		built.err = err
		return
	}
	if built.dir, built.err = os.MkdirTemp("", "kvctrl-e2e-"); built.err != nil {
		return
	}
	path := filepath.Join(built.dir, "kvctrld")
	args := []string{"build", "-o", path}
	if raceEnabled {
		args = append(args, "-race")
	}
	cmd := exec.Command("go", append(args, "./cmd/kvctrld")...)
	cmd.Dir = root
	if out, err := cmd.CombinedOutput(); err != nil {
		built.err = fmt.Errorf("%w\n%s", err, out)
		return
	}
	built.path = path
}

// moduleRoot is the nearest directory upwards that has a go.mod.
func moduleRoot() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for {
		_, err := os.Stat(filepath.Join(dir, "go.mod"))
		if err == nil {
			return dir, nil
		}
		parent := filepath.Dir(dir)
		if !errors.Is(err, os.ErrNotExist) || parent == dir {
			return "", fmt.Errorf("no go.mod above the working directory: %w", err)
		}
		dir = parent
	}
}
