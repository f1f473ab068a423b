// Package boltcheck looks over a bbolt file before bbolt opens it.
//
// bbolt trusts its file. A file cut short ends the process with a fault on the
// memory map, and one with a damaged tree makes bbolt.Open panic on a goroutine
// of its own, where no caller can recover. Check reads the file with plain reads,
// follows every page that the newest meta page reaches, and reports as an error
// what bbolt would die of. It looks at the tree and the keys, not at the values:
// bbolt keeps no checksum of those.
package boltcheck

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"os"
)

// ErrDamaged is returned, wrapped with what is wrong and where, for a file that
// bbolt must not be given.
var ErrDamaged = errors.New("unsound bbolt file")

const (
	magic      = 0xED0CDAED
	version    = 2
	headerSize = 16
	elemSize   = 16
	bucketSize = 16
	metaSize   = 64

	flagBranch, flagLeaf, flagFreelist = 1, 2, 16

	bucketElem = 1
	noFreelist = ^uint64(0)
	maxDepth   = 64 // a tree of 64-bit keys is not deeper; a loop in the pages is
)

// Check reads the bbolt file at path. An empty or missing file is not damaged:
// bbolt makes a new one of it, so callers that expect data look before.
func Check(path string) error {
	f, err := os.Open(path)
	if err != nil {
		if errors.Is(err, os.ErrNotExist) {
			return nil
		}
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if info.Size() == 0 {
		return nil
	}
	c := &checker{r: f, size: info.Size(), seen: map[uint64]bool{0: true, 1: true}}
	m, err := c.meta()
	if err != nil {
		return err
	}
	c.pages = m.pages
	if have := uint64(c.size) / c.pageSize; have < m.pages {
		return damaged("%d bytes hold %d pages, the file has had %d: it was cut short", c.size, have, m.pages)
	}
	if m.freelist != noFreelist {
		p, err := c.page(m.freelist)
		if err != nil {
			return err
		}
		if p.flags != flagFreelist {
			return damaged("page %d: flags %#x, want the freelist", p.id, p.flags)
		}
	}
	return c.tree(m.root, 0, nil)
}

func damaged(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrDamaged, fmt.Sprintf(format, args...))
}

type checker struct {
	r        io.ReaderAt
	size     int64
	pageSize uint64
	pages    uint64          // high-water mark
	seen     map[uint64]bool // pages that something refers to
}

type meta struct {
	root, freelist, pages, txid uint64
}

// meta finds the valid meta page with the highest transaction, as bbolt does.
func (c *checker) meta() (meta, error) {
	var best meta
	// The page size stands in the meta pages; the second one is found by trying.
	for shift := -1; shift <= 14; shift++ {
		off := int64(0)
		if shift >= 0 {
			off = 1024 << shift
			if c.pageSize != 0 && off != int64(c.pageSize) {
				continue
			}
		}
		buf := make([]byte, headerSize+metaSize)
		if _, err := c.r.ReadAt(buf, off); err != nil {
			continue // beyond the end: the other one decides
		}
		b := buf[headerSize:]
		sum := fnv.New64a()
		sum.Write(b[:metaSize-8])
		if binary.LittleEndian.Uint32(b) != magic || binary.LittleEndian.Uint32(b[4:]) != version ||
			sum.Sum64() != binary.LittleEndian.Uint64(b[56:]) {
			continue
		}
		size := uint64(binary.LittleEndian.Uint32(b[8:]))
		if shift >= 0 && size != uint64(off) || size < 512 || size&(size-1) != 0 {
			continue
		}
		m := meta{
			root:     binary.LittleEndian.Uint64(b[16:]),
			freelist: binary.LittleEndian.Uint64(b[32:]),
			pages:    binary.LittleEndian.Uint64(b[40:]),
			txid:     binary.LittleEndian.Uint64(b[48:]),
		}
		if c.pageSize == 0 || m.txid > best.txid {
			best = m
		}
		c.pageSize = size
	}
	if c.pageSize == 0 {
		return meta{}, damaged("neither meta page is valid: this is not a bbolt file, or its head is overwritten")
	}
	return best, nil
}

type page struct {
	id    uint64
	flags uint16
	count int
	bytes uint64 // with its overflow pages
	head  []byte // its first pageSize bytes
}

// page reads a page's first part and claims all of it: no page is referred to
// twice.
func (c *checker) page(id uint64) (page, error) {
	if id < 2 || id >= c.pages {
		return page{}, damaged("page %d is referred to, the file has pages 2 to %d", id, c.pages-1)
	}
	head := make([]byte, c.pageSize)
	if _, err := c.r.ReadAt(head, int64(id*c.pageSize)); err != nil {
		return page{}, fmt.Errorf("read page %d: %w", id, err)
	}
	p := page{
		id:    binary.LittleEndian.Uint64(head),
		flags: binary.LittleEndian.Uint16(head[8:]),
		count: int(binary.LittleEndian.Uint16(head[10:])),
		head:  head,
	}
	overflow := uint64(binary.LittleEndian.Uint32(head[12:]))
	if p.id != id {
		return page{}, damaged("page %d says that it is page %d", id, p.id)
	}
	if overflow >= c.pages-id {
		return page{}, damaged("page %d runs on for %d pages, the file has %d", id, overflow, c.pages)
	}
	p.bytes = (overflow + 1) * c.pageSize
	for i := id; i <= id+overflow; i++ {
		if c.seen[i] {
			return page{}, damaged("page %d is referred to twice", i)
		}
		c.seen[i] = true
	}
	return p, nil
}

// part reads length bytes at off of a page.
func (c *checker) part(p page, off, length uint64) ([]byte, error) {
	if length > p.bytes || off > p.bytes-length {
		return nil, damaged("page %d: bytes %d to %d, the page has %d", p.id, off, off+length, p.bytes)
	}
	if off+length <= uint64(len(p.head)) {
		return p.head[off : off+length], nil
	}
	buf := make([]byte, length)
	if _, err := c.r.ReadAt(buf, int64(p.id*c.pageSize+off)); err != nil {
		return nil, fmt.Errorf("read page %d: %w", p.id, err)
	}
	return buf, nil
}

// tree follows a page and what is below it. Its keys are at least min.
func (c *checker) tree(id uint64, depth int, min []byte) error {
	if depth > maxDepth {
		return damaged("page %d lies deeper than %d levels", id, maxDepth)
	}
	p, err := c.page(id)
	if err != nil {
		return err
	}
	if p.flags != flagBranch && p.flags != flagLeaf {
		return damaged("page %d: flags %#x, want a branch or a leaf", id, p.flags)
	}
	if p.flags == flagBranch && p.count == 0 {
		return damaged("page %d: a branch without children", id)
	}
	prev := min
	for i := range p.count {
		at := headerSize + uint64(i)*elemSize
		e, err := c.part(p, at, elemSize)
		if err != nil {
			return err
		}
		var pos, keySize, valueSize, child, flags uint64
		if p.flags == flagBranch {
			pos, keySize = uint64(binary.LittleEndian.Uint32(e)), uint64(binary.LittleEndian.Uint32(e[4:]))
			child = binary.LittleEndian.Uint64(e[8:])
		} else {
			flags, pos = uint64(binary.LittleEndian.Uint32(e)), uint64(binary.LittleEndian.Uint32(e[4:]))
			keySize, valueSize = uint64(binary.LittleEndian.Uint32(e[8:])), uint64(binary.LittleEndian.Uint32(e[12:]))
		}
		if end := at + pos + keySize + valueSize; end > p.bytes {
			return damaged("page %d: item %d ends at byte %d, the page at %d", id, i, end, p.bytes)
		}
		key, err := c.part(p, at+pos, keySize)
		if err != nil {
			return err
		}
		if prev != nil && (bytes.Compare(prev, key) > 0 || i > 0 && bytes.Equal(prev, key)) {
			return damaged("page %d: item %d is out of order", id, i)
		}
		prev = key
		switch {
		case p.flags == flagBranch:
			err = c.tree(child, depth+1, key)
		case flags&bucketElem != 0:
			err = c.bucket(p, at+pos+keySize, valueSize, depth)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// bucket follows a bucket, whose root is a page or stands in the value itself.
func (c *checker) bucket(p page, off, length uint64, depth int) error {
	if length < bucketSize {
		return damaged("page %d: a bucket of %d bytes, want %d", p.id, length, bucketSize)
	}
	b, err := c.part(p, off, bucketSize)
	if err != nil {
		return err
	}
	if root := binary.LittleEndian.Uint64(b); root != 0 {
		return c.tree(root, depth+1, nil)
	}
	if length < bucketSize+headerSize {
		return damaged("page %d: an inline bucket of %d bytes", p.id, length)
	}
	inline, err := c.part(p, off+bucketSize, length-bucketSize)
	if err != nil {
		return err
	}
	if flags := binary.LittleEndian.Uint16(inline[8:]); flags != flagLeaf {
		return damaged("page %d: an inline bucket with flags %#x", p.id, flags)
	}
	for i := range uint64(binary.LittleEndian.Uint16(inline[10:])) {
		at := headerSize + i*elemSize
		if at+elemSize > uint64(len(inline)) {
			return damaged("page %d: an inline bucket cut short", p.id)
		}
		e := inline[at:]
		end := at + uint64(binary.LittleEndian.Uint32(e[4:])) + uint64(binary.LittleEndian.Uint32(e[8:])) + uint64(binary.LittleEndian.Uint32(e[12:]))
		if end > uint64(len(inline)) {
			return damaged("page %d: an item of an inline bucket ends at byte %d of %d", p.id, end, len(inline))
		}
	}
	return nil
}
