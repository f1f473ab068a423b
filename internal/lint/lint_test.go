// Package lint holds the rules of the house as tests: which room may import which,
// that the pure rooms stay pure, that files stay small and packages say what they
// are for.
package lint

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

const module = "github.com/kvctrl/kvctrl/"

// mayImport says which of our rooms each room may import. internal/ holds helpers
// without domain meaning and is open to all but the pure rooms.
var mayImport = map[string][]string{
	"lmcache":        {},
	"registry/index": {},
	"registry":       {"registry/index"},
	"fsm":            {"lmcache", "registry"},
	"cluster":        {"lmcache", "registry", "fsm"},
	"ingest":         {"lmcache", "registry", "fsm", "cluster"},
	"executor":       {"lmcache", "registry", "fsm", "cluster"},
	// httpapi stands one floor above the rooms whose errors and counts it puts into words.
	"httpapi": {"lmcache", "registry", "fsm", "cluster", "ingest", "executor"},
	"cmd":     {"lmcache", "registry", "fsm", "cluster", "ingest", "executor", "httpapi"},
}

// pure are the rooms that only compute.
var pure = []string{"lmcache", "registry", "registry/index"}

// impure are the packages whose import would give a pure room a clock, a disk, a
// network, chance or a log.
var impure = []string{"os", "net", "net/http", "syscall", "math/rand", "math/rand/v2", "crypto/rand", "log", "log/slog", "context", "os/exec", "io/ioutil"}

// TestImportsPointOneWay fails when a room imports one that stands after it.
func TestImportsPointOneWay(t *testing.T) {
	eachFile(t, func(t *testing.T, room, name string, f *ast.File) {
		if strings.HasSuffix(name, "_test.go") {
			return // tests may stand anywhere: a replica is tested whole
		}
		allowed, ours := mayImport[room]
		for _, imp := range f.Imports {
			p, err := strconv.Unquote(imp.Path.Value)
			if err != nil {
				t.Fatal(err)
			}
			target, within := strings.CutPrefix(p, module)
			if !within {
				continue
			}
			targetRoom := roomOf(target)
			switch {
			case targetRoom == room:
			case targetRoom == "internal":
				if contains(pure, room) {
					t.Errorf("%s: a pure room imports %s", name, target)
				}
			case room == "internal" && !contains([]string{"cmd", "httpapi", "ingest", "executor"}, targetRoom):
			case ours && contains(allowed, targetRoom):
			default:
				t.Errorf("%s: %s may not import %s; allowed are %q", name, room, target, allowed)
			}
		}
	})
}

// TestPureRoomsStayPure fails when registry or lmcache could read a clock, wait,
// draw chance or start a goroutine.
func TestPureRoomsStayPure(t *testing.T) {
	eachFile(t, func(t *testing.T, room, name string, f *ast.File) {
		if strings.HasSuffix(name, "_test.go") || !contains(pure, room) {
			return
		}
		for _, imp := range f.Imports {
			p, err := strconv.Unquote(imp.Path.Value)
			if err != nil {
				t.Fatal(err)
			}
			if contains(impure, p) {
				t.Errorf("%s: a pure room imports %q", name, p)
			}
		}
		ast.Inspect(f, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.GoStmt:
				t.Errorf("%s: a pure room starts a goroutine", name)
			case *ast.SelectorExpr:
				if x, ok := n.X.(*ast.Ident); ok && x.Name == "time" && contains([]string{"Now", "Since", "Until", "Sleep", "After", "NewTimer", "NewTicker", "Tick", "AfterFunc"}, n.Sel.Name) {
					t.Errorf("%s: a pure room calls time.%s", name, n.Sel.Name)
				}
			}
			return true
		})
	})
}

// TestFilesStaySmall fails when a file has outgrown one concept.
func TestFilesStaySmall(t *testing.T) {
	const most = 600
	eachFile(t, func(t *testing.T, _, name string, f *ast.File) {
		if strings.HasSuffix(name, "_test.go") {
			return
		}
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		if n := strings.Count(string(b), "\n"); n > most {
			t.Errorf("%s has %d lines, more than %d: split it by concept", name, n, most)
		}
	})
}

// TestEveryRoomHasADoc fails when a package does not say what it is for.
func TestEveryRoomHasADoc(t *testing.T) {
	documented := map[string]bool{}
	eachFile(t, func(t *testing.T, _, name string, f *ast.File) {
		dir := path.Dir(filepath.ToSlash(name))
		if f.Doc != nil && len(f.Doc.Text()) > 60 {
			documented[dir] = true
		} else if _, seen := documented[dir]; !seen {
			documented[dir] = false
		}
	})
	for dir, ok := range documented {
		if !ok {
			t.Errorf("%s has no package comment of more than 60 characters", dir)
		}
	}
}

// eachFile parses every Go file of the repository and calls f with its room.
func eachFile(t *testing.T, f func(t *testing.T, room, name string, file *ast.File)) {
	t.Helper()
	root := filepath.Join("..", "..")
	files := 0
	err := filepath.WalkDir(root, func(name string, d os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && name != root && (strings.HasPrefix(d.Name(), ".") || d.Name() == "testdata" || d.Name() == "bin") {
			return filepath.SkipDir
		}
		if d.IsDir() || !strings.HasSuffix(name, ".go") {
			return nil
		}
		parsed, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.ParseComments)
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(root, name)
		if err != nil {
			return err
		}
		files++
		f(t, roomOf(path.Dir(filepath.ToSlash(rel))), name, parsed)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if files == 0 {
		t.Fatal("no Go file found: the test looks in the wrong place")
	}
}

// roomOf maps a package directory to its room.
func roomOf(dir string) string {
	if dir == "registry/index" {
		return dir
	}
	first, _, _ := strings.Cut(dir, "/")
	return first
}

func contains(list []string, s string) bool {
	for _, x := range list {
		if x == s {
			return true
		}
	}
	return false
}
