package fsm

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
)

// A snapshot is a header and a row of sections, each with its length and its
// checksum; docs/formats.md is the normative text.

// SnapshotVersion is the version of the snapshots that this build writes and reads.
const SnapshotVersion = 1

const (
	snapshotMagic = "KVCTRLSN"

	snapshotHeaderSize = 8 + 4 + 8 + 8 + 4 // magic, version/plane/key width/0, index, term, CRC32C
	sectionHeaderSize  = 1 + 4 + 4         // type, length, CRC32C over type, length and payload

	// maxSection bounds a section, and with it what a reader allocates before it
	// has seen a checksum. Writers cut at cutSection.
	maxSection = 1 << 20
	cutSection = 256 << 10
)

// sectionType says what a section holds. As with entries, an unknown one from
// sectionIgnorable up is skipped, an unknown one below refuses the snapshot.
type sectionType uint8

const (
	sectionState     sectionType = 1 // a piece of the state beside the index
	sectionKeys      sectionType = 2 // keys of one shard and their holders
	sectionEnd       sectionType = 3 // counts and digest; nothing follows
	sectionIgnorable sectionType = 128
)

func (t sectionType) String() string {
	switch t {
	case sectionState:
		return "state"
	case sectionKeys:
		return "keys"
	case sectionEnd:
		return "end"
	}
	return fmt.Sprintf("type %d", uint8(t))
}

// snapshotHeader is what stands before the sections.
type snapshotHeader struct {
	index, term uint64 // of the last entry that the state holds
}

func (h snapshotHeader) append(dst []byte) []byte {
	at := len(dst)
	dst = append(dst, snapshotMagic...)
	dst = append(dst, SnapshotVersion, planeInProcess, keyWidth, 0)
	dst = binary.LittleEndian.AppendUint64(dst, h.index)
	dst = binary.LittleEndian.AppendUint64(dst, h.term)
	return binary.LittleEndian.AppendUint32(dst, crc32.Checksum(dst[at:], castagnoli))
}

// sectionWriter writes sections; the first error sticks.
type sectionWriter struct {
	w        io.Writer
	buf      []byte // header and payload of the section being built
	sections uint64
	err      error
}

func newSectionWriter(w io.Writer) *sectionWriter {
	return &sectionWriter{w: w, buf: make([]byte, sectionHeaderSize, sectionHeaderSize+cutSection+cutSection/4)}
}

// size is the payload so far.
func (s *sectionWriter) size() int { return len(s.buf) - sectionHeaderSize }

// flush writes the payload in buf as a section, and empties buf.
func (s *sectionWriter) flush(t sectionType) {
	size := s.size()
	if s.err == nil && size > maxSection {
		s.err = fmt.Errorf("bug: %s section of %d bytes, limit %d", t, size, maxSection)
	}
	if s.err == nil {
		s.buf[0] = byte(t)
		binary.LittleEndian.PutUint32(s.buf[1:], uint32(size))
		binary.LittleEndian.PutUint32(s.buf[5:], sectionSum(s.buf[:5], s.buf[sectionHeaderSize:]))
		_, s.err = s.w.Write(s.buf)
		s.sections++
	}
	s.buf = s.buf[:sectionHeaderSize]
}

func sectionSum(head, payload []byte) uint32 {
	return crc32.Update(crc32.Checksum(head, castagnoli), castagnoli, payload)
}

// SnapshotError says where a snapshot is damaged, or why this build cannot read it.
type SnapshotError struct {
	Section int   // 0 is the header, 1 the first section
	Offset  int64 // in bytes, where the section begins
	Err     error
}

func (e *SnapshotError) Error() string {
	where := "header"
	if e.Section > 0 {
		where = fmt.Sprintf("section %d at byte %d", e.Section, e.Offset)
	}
	return fmt.Sprintf("snapshot: %s: %v", where, e.Err)
}

func (e *SnapshotError) Unwrap() error { return e.Err }

// sectionReader reads sections and checks them. It holds one section at a time.
type sectionReader struct {
	r       *bufio.Reader
	buf     []byte
	section int
	begin   int64 // of the section
	next    int64 // behind it
}

func newSectionReader(r io.Reader) *sectionReader {
	return &sectionReader{r: bufio.NewReaderSize(r, 64<<10)}
}

// fault names the place of err.
func (s *sectionReader) fault(err error) error {
	return &SnapshotError{Section: s.section, Offset: s.begin, Err: err}
}

func (s *sectionReader) faultf(format string, args ...any) error {
	return s.fault(fmt.Errorf(format, args...))
}

// read gives the next n bytes, good until the next read.
func (s *sectionReader) read(n int) ([]byte, error) {
	if cap(s.buf) < n {
		s.buf = make([]byte, n)
	}
	b := s.buf[:n]
	got, err := io.ReadFull(s.r, b)
	s.next += int64(got)
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return nil, s.faultf("cut off after %d of %d bytes: %w", got, n, io.ErrUnexpectedEOF)
	}
	if err != nil {
		return nil, s.fault(err)
	}
	return b, nil
}

func (s *sectionReader) header() (snapshotHeader, error) {
	b, err := s.read(snapshotHeaderSize)
	if err != nil {
		return snapshotHeader{}, err
	}
	body, sum := b[:snapshotHeaderSize-4], binary.LittleEndian.Uint32(b[snapshotHeaderSize-4:])
	if string(b[:8]) != snapshotMagic {
		return snapshotHeader{}, s.faultf("begins with %q, want %q: this is not a snapshot of kvctrl", b[:8], snapshotMagic)
	}
	if got := crc32.Checksum(body, castagnoli); got != sum {
		return snapshotHeader{}, s.faultf("checksum %08x, want %08x", got, sum)
	}
	switch {
	case b[8] != SnapshotVersion:
		return snapshotHeader{}, s.faultf("version %d, this build reads version %d: use a build that writes it", b[8], SnapshotVersion)
	case b[9] != planeInProcess || b[10] != keyWidth || b[11] != 0:
		return snapshotHeader{}, s.faultf("plane %d, keys of %d bytes, flags %d; this build reads plane %d, keys of %d bytes, flags 0",
			b[9], b[10], b[11], planeInProcess, keyWidth)
	}
	return snapshotHeader{index: binary.LittleEndian.Uint64(b[12:]), term: binary.LittleEndian.Uint64(b[20:])}, nil
}

// sectionBody gives the next section. Its payload is good until the next call.
func (s *sectionReader) sectionBody() (sectionType, []byte, error) {
	s.section++
	s.begin = s.next
	b, err := s.read(sectionHeaderSize)
	if err != nil {
		return 0, nil, err
	}
	head := [5]byte(b)
	length, sum := binary.LittleEndian.Uint32(b[1:]), binary.LittleEndian.Uint32(b[5:])
	if length > maxSection {
		return 0, nil, s.faultf("%d bytes, limit %d", length, maxSection)
	}
	payload, err := s.read(int(length))
	if err != nil {
		return 0, nil, err
	}
	if got := sectionSum(head[:], payload); got != sum {
		return 0, nil, s.faultf("checksum %08x, want %08x", got, sum)
	}
	return sectionType(head[0]), payload, nil
}

// end refuses bytes behind the last section.
func (s *sectionReader) end() error {
	s.section++
	s.begin = s.next
	switch _, err := s.r.ReadByte(); {
	case err == nil:
		return s.faultf("bytes behind the end section")
	case !errors.Is(err, io.EOF):
		return s.fault(err)
	}
	return nil
}
