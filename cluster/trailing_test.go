package cluster

import (
	"fmt"
	"strings"
	"testing"
)

func TestTrailing(t *testing.T) {
	const mib = 1 << 20
	for _, c := range []struct {
		name           string
		limit          uint64
		bytes          int64
		mean, distance uint64
		want           uint64
	}{
		{"nothing known yet", 4096, 256 * mib, 0, 0, 4096},
		{"small entries: the limit", 4096, 256 * mib, 8 << 10, 2048, 4096},
		{"64 KiB: the limit is 256 MiB", 4096, 256 * mib, 64 << 10, 2048, 4096},
		{"256 KiB: 448 MiB", 4096, 256 * mib, 256 << 10, 1024, 1792},
		{"512 KiB: 448 MiB", 4096, 256 * mib, 512 << 10, 512, 896},
		{"512 KiB, and a distance of 1000: that", 4096, 256 * mib, 512 << 10, 1000, 1500},
		{"a distance beyond the limit", 4096, 256 * mib, 100, 5000, 7500},
		{"an odd distance is rounded up", 64, 256 * mib, 100, 101, 152},
		{"huge entries: a few stay", 4096, mib, 16 * mib, 1, minTrailing},
		{"huge entries, and a limit below a few", 24, mib, 16 * mib, 1, 24},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := trailing(c.limit, c.bytes, c.mean, c.distance); got != c.want {
				t.Errorf("keeps %d, want %d", got, c.want)
			}
		})
	}
}

func TestTrailingWatch(t *testing.T) {
	o := Options{}.withDefaults()
	var w trailingWatch
	const size = 256 << 10
	step := func(snapshot, newest, want uint64) {
		t.Helper()
		entries := newest - snapshot
		got, ok := w.note(o, snapshot, newest, entries*size, entries)
		if !ok {
			got = 0
		}
		if got != want {
			t.Errorf("snapshot %d, newest %d: told %d, want %d", snapshot, newest, got, want)
		}
	}
	step(0, 10, 4096)  // too few for a mean
	step(0, 100, 1792) // 448 MiB of 256 KiB
	step(0, 1000, 0)   // 1500 needed
	step(0, 1300, 0)   // 1950 needed, and 1792 is enough for a distance of 1300
	step(0, 1400, 2100)
	step(1400, 1450, 1792) // the first snapshot has none before
	step(1400, 2800, 2100)
	step(2800, 2801, 0) // 1400 between the last two
	step(2900, 2950, 1792)
	if w.distance != 100 || w.mean != size {
		t.Errorf("%+v", w)
	}
}

func TestByteMarks_Since(t *testing.T) {
	var b byteMarks
	if bytes, entries := b.since(5); bytes != 0 || entries != 0 {
		t.Errorf("of nothing: %d bytes of %d entries", bytes, entries)
	}
	b.note(10, 1000)
	b.note(20, 3000)
	b.note(40, 9000)
	for _, c := range []struct{ index, bytes, entries uint64 }{{0, 8000, 30}, {10, 8000, 30}, {25, 6000, 20}, {40, 0, 0}, {50, 0, 0}} {
		if bytes, entries := b.since(c.index); bytes != c.bytes || entries != c.entries {
			t.Errorf("since %d: %d bytes of %d entries, want %d of %d", c.index, bytes, entries, c.bytes, c.entries)
		}
	}
}

// A log of large entries is bounded in bytes: by what stays behind a snapshot. The way
// from the snapshot before the last is always there.
func TestNode_LogIsBoundedInBytes(t *testing.T) {
	inTown(t, func(t *testing.T, w *town) {
		const size = 32 << 10
		n1 := w.house("n1", 1)
		n1.tweak = func(o *Options) { o.SnapshotBytes = 2 << 20 }
		n1.start()
		await(t, "ready", n1.node.Ready)
		line := "x:" + strings.Repeat("y", size)
		var most, left, snapshot, before uint64
		for i := range 600 {
			mustPropose(t, n1.node, fmt.Sprint(line, i))
			if i%10 != 9 {
				continue
			}
			wait(2 * watchTick)
			if s := n1.node.snapshotIndex(); s != snapshot {
				snapshot, before = s, snapshot
			}
			first, err1 := n1.disk.store.FirstIndex()
			last, err2 := n1.disk.store.LastIndex()
			if err1 != nil || err2 != nil {
				t.Fatal(err1, err2)
			}
			if first > before+1 {
				t.Fatalf("the log begins at %d, the snapshot before the last is of %d", first, before)
			}
			left = last - first + 1
			most = max(most, left)
		}
		if before == 0 {
			t.Fatal("no two snapshots")
		}
		// 3.5 MiB stay, and 2 MiB more come before the next snapshot.
		if bytes := most * size; bytes > 7<<20 {
			t.Errorf("%d entries, %d KiB, were in the log", most, bytes>>10)
		}
		if bytes := left * size; bytes < 3<<20 {
			t.Errorf("%d entries, %d KiB, are left", left, bytes>>10)
		}
	})
}
