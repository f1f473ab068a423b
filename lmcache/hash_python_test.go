package lmcache

import (
	"bytes"
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"
)

// python is the interpreter that these tests compare with: $PYTHON, else python3.
type python struct {
	exe     string
	minor   int    // of 3.minor
	modules string // those of cbor2 and xxhash that it has
}

// needPython skips the test unless there is a CPython that LMCache could run on.
func needPython(t *testing.T) python {
	t.Helper()
	exe, err := exec.LookPath(cmp.Or(os.Getenv("PYTHON"), "python3"))
	if err != nil {
		t.Skipf("not compared with a real Python: %v", err)
	}
	py := python{exe: exe}
	const script = `import importlib.util, struct, sys
have = [m for m in ("cbor2", "xxhash") if importlib.util.find_spec(m)]
print(sys.implementation.name, sys.byteorder, struct.calcsize("P"), sys.version_info[0], sys.version_info[1],
    sys.executable, ",".join(["hashlib"] + have))`
	var name, order string
	var pointer, major int
	out := string(py.run(t, script, "0", nil))
	if _, err := fmt.Sscan(out, &name, &order, &pointer, &major, &py.minor, &py.exe, &py.modules); err != nil {
		t.Fatalf("%s said %q: %v", exe, out, err)
	}
	if name != "cpython" || order != "little" || pointer != 8 || major != 3 || py.minor < 8 {
		t.Skipf("not compared with a real Python: want 64-bit little-endian CPython 3.8 or newer, %s is %s", exe, out)
	}
	t.Logf("comparing with CPython 3.%d, %s, %s", py.minor, py.exe, py.modules)
	return py
}

// run runs a script with a seed and returns what it wrote.
func (py python) run(t *testing.T, script, seed string, in []byte) []byte {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, py.exe, "-c", script)
	cmd.Env = append(os.Environ(), "PYTHONHASHSEED="+seed)
	cmd.Stdin = bytes.NewReader(in)
	out, err := cmd.Output()
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
		t.Fatalf("%s: %v: %s", py.exe, err, exit.Stderr)
	}
	if err != nil {
		t.Fatalf("%s: %v", py.exe, err)
	}
	return out
}

// pythonChains reads records of (mode, NONE_HASH, chunk size, token count, tokens)
// and writes every key of their chains as 8 bytes. A mode is hash, shape and value.
// builtin hashing is hash() of the tuples of LMCache's token_database.py; the digests
// are those of vLLM's hashing.py, with its modules.
const pythonChains = `
import array, hashlib, pickle, struct, sys
try: import cbor2
except ImportError: pass
try: import xxhash
except ImportError: pass

data = sys.stdin.buffer.read()
head = struct.Struct("<cccqII")
out = []

def pickled(obj): return pickle.dumps(obj, protocol=5)
def cbor(obj): return cbor2.dumps(obj, canonical=True)
digests = {
    b"s": lambda obj: hashlib.sha256(pickled(obj)).digest(),
    b"S": lambda obj: hashlib.sha256(cbor(obj)).digest(),
    b"x": lambda obj: xxhash.xxh3_128_digest(pickled(obj)),
    b"X": lambda obj: xxhash.xxh3_128_digest(cbor(obj)),
}
shapes = {
    b"E": lambda p, t: (p, t, ()),
    b"N": lambda p, t: (p, t, None),
    b"T": lambda p, t: (p, t),
}

def step(mode, obj, value):
    if mode == b"b":
        h = hash(obj)
        out.append(struct.pack("<q", h))
        return h
    digest = digests[mode](obj)
    part = digest[-8:] if value == b"l" else digest[:8]
    out.append(part[::-1])
    return digest if value == b"w" else int.from_bytes(part, "big")

pos = 0
while pos < len(data):
    mode, shape, value, h, size, n = head.unpack_from(data, pos)
    pos += head.size
    tokens = array.array("q")
    tokens.frombytes(data[pos:pos + 8 * n])
    pos += 8 * n
    for i in range(0, n, size):
        h = step(mode, shapes[shape](h, tuple(tokens[i:i + size])), value)
sys.stdout.buffer.write(b"".join(out))
`

// pythonMode gives the letters of pythonChains for a family, and the module needed.
func pythonMode(f hashFamily) (mode [3]byte, module string) {
	mode[0], module = 'b', "hashlib"
	switch {
	case f.hash == hashSHA256 && f.form == formPickle:
		mode[0] = 's'
	case f.hash == hashSHA256:
		mode[0], module = 'S', "cbor2"
	case f.hash == hashXXH3 && f.form == formPickle:
		mode[0], module = 'x', "xxhash"
	case f.hash == hashXXH3:
		mode[0], module = 'X', "cbor2,xxhash"
	}
	mode[1] = map[hashExtra]byte{extraEmpty: 'E', extraNone: 'N', extraAbsent: 'T'}[f.extra]
	mode[2] = map[hashValue]byte{valueFirst8: 'f', valueLast8: 'l', valueWhole: 'w'}[f.value]
	return mode, module
}

// TestChain_EqualsPython compares random prompts, with any integers for tokens and
// NONE_HASH, with a real CPython: its hash() and
// pickle, and cbor2 and xxhash where it has them.
func TestChain_EqualsPython(t *testing.T) {
	py := needPython(t)
	many, some := 100_000, 5_000
	if testing.Short() {
		many, some = 5_000, 1_000
	}
	rng := rand.New(rand.NewPCG(1, 2))
	type prompt struct {
		profile Profile
		size    int
		tokens  []int64
	}
	var prompts []prompt
	var in []byte
	for _, f := range families() {
		mode, module := pythonMode(f)
		if !strings.Contains(py.modules, module) {
			t.Logf("%s: not compared: this Python has no %s", f.name, module)
			continue
		}
		count := some
		if f.hash == hashBuiltin {
			count = many
		}
		if f.name == "builtin-none" && py.minor < 12 {
			t.Logf("%s: not compared: None has no fixed hash before Python 3.12", f.name)
			continue
		}
		for range count {
			none := randomToken(rng)
			p := prompt{Profile{family: f, none: hashPrefix{n: uint64(none), negative: none < 0}}, 1 + rng.IntN(12), nil}
			if f.hash == hashBuiltin {
				p.profile.none = hashPrefix{n: pyIntHash(none)}
			}
			n := rng.IntN(30)
			if rng.IntN(200) == 0 {
				n, p.size = rng.IntN(1500), 256
			}
			p.tokens = make([]int64, n)
			for i := range p.tokens {
				p.tokens[i] = randomToken(rng)
			}
			in = binary.LittleEndian.AppendUint64(append(in, mode[:]...), uint64(none))
			in = binary.LittleEndian.AppendUint32(in, uint32(p.size))
			in = binary.LittleEndian.AppendUint32(in, uint32(n))
			for _, token := range p.tokens {
				in = binary.LittleEndian.AppendUint64(in, uint64(token))
			}
			prompts = append(prompts, p)
		}
	}
	out := py.run(t, pythonChains, "0", in)
	keys := 0
	for _, p := range prompts {
		for i, got := range p.profile.Chain(p.tokens, p.size, true) {
			if len(out) < 8 {
				t.Fatalf("Python wrote %d keys only", keys)
			}
			want := Key(binary.LittleEndian.Uint64(out))
			out = out[8:]
			keys++
			if got != want {
				t.Fatalf("%s after %+v, chunks of %d, tokens %v: key %d is %#x, Python's %#x",
					p.profile.family.name, p.profile.none, p.size, p.tokens, i, got, want)
			}
		}
	}
	if len(out) > 0 {
		t.Errorf("Python wrote %d bytes too many", len(out))
	}
	t.Logf("%d prompts, %d keys, all equal", len(prompts), keys)
}

// randomToken is mostly a token id, now and then any other integer.
func randomToken(rng *rand.Rand) int64 {
	switch rng.IntN(8) {
	case 0:
		return rng.Int64N(1<<33) - 1<<32
	case 1:
		n := int64(rng.Uint64())
		return n >> rng.IntN(64) // all widths, both signs
	case 2:
		edges := [...]int64{0, math.MaxUint8, math.MaxUint16, math.MaxInt32, math.MaxUint32, pyModulus, math.MaxInt64,
			-1, -pyModulus, math.MinInt32, math.MinInt64}
		return edges[rng.IntN(len(edges))] + rng.Int64N(5) - 2
	default:
		return rng.Int64N(200_000)
	}
}

// TestParseProfile_SeedEqualsPython compares NONE_HASH with a Python that has the
// seed: hash() of its text, and its SHA-256.
func TestParseProfile_SeedEqualsPython(t *testing.T) {
	py := needPython(t)
	const script = `import hashlib, os, pickle
seed = os.environ["PYTHONHASHSEED"]
print(hash(seed), hashlib.sha256(pickle.dumps(seed, protocol=5)).hexdigest())`
	suffix := ""
	if py.minor <= 10 {
		suffix = py310Suffix
	}
	for _, seed := range []string{"", "0", "1", "00", "42", "123", "1234567", "00000000000017", "2147483648", "4294967295"} {
		var hash int64
		var digest string
		out := string(py.run(t, script, seed, nil))
		if _, err := fmt.Sscan(out, &hash, &digest); err != nil {
			t.Fatalf("seed %q: Python said %q: %v", seed, strings.TrimSpace(out), err)
		}
		if got, want := mustProfile(t, "builtin@seed="+seed+suffix).none.n, pyIntHash(hash); got != want {
			t.Errorf("seed %q: NONE_HASH reduces to %d, Python's to %d", seed, got, want)
		}
		whole := mustProfile(t, "sha256-bytes@seed="+seed)
		if got := fmt.Sprintf("%x", whole.none.bytes()); got != digest {
			t.Errorf("seed %q: digest %s, Python's %s", seed, got, digest)
		}
	}
}
