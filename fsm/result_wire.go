package fsm

import (
	"errors"
	"fmt"
)

// This file writes what applying a worker batch gave as bytes: the answer to a
// replica that has proposed a batch at the leader. docs/formats.md, "Results", is
// the normative text.

// ResultVersion is the version of the results that this build writes and reads.
const ResultVersion = 1

const (
	// MaxResult bounds an encoded result: maxTexts texts, and four bytes for each
	// record of the largest entry.
	MaxResult = 1 << 20

	// maxTexts bounds the different texts of one result: a batch of refused records
	// must not be answered with many times its size.
	maxTexts = 256
	// moreTexts stands for the texts beyond maxTexts.
	moreTexts = "refused; this batch has too many different reasons to list them all"

	resultBatch   = 1
	resultError   = 2 // any error: its words
	resultRefused = 3 // a RefusedError

	batchDuplicate = 1
	refusedUnknown = 1

	// A record's result is a number of these bits, the frequent ones in its first
	// byte; behind it the places of the texts it names, in the order of their bits.
	resOpsGap          = 0x001
	resOpsUnknown      = 0x002
	resOpsRefused      = 0x004 // text
	resRegisterKnown   = 0x008
	resRegisterRefused = 0x010 // text
	resSyncStartAccept = 0x020
	resSyncStartReason = 0x040 // text
	resSyncIgnored     = 0x080
	resSyncComplete    = 0x100
	resDeregistered    = 0x200
	resOpsLate         = 0x400 // how many, behind the texts

	knownResultBits = 0x7ff
)

// RemoteError is an error that another replica answered with: its words, and the
// RefusedError that it was, if it was one (errors.As finds it).
type RemoteError struct {
	Words   string
	refused *RefusedError
}

func (e *RemoteError) Error() string { return e.Words }

func (e *RemoteError) Unwrap() error {
	if e.refused == nil {
		return nil // not a nil *RefusedError
	}
	return e.refused
}

// AppendResult appends a BatchResult, or an error, as DecodeResult reads it. There is
// no encoding of other results: only worker batches are proposed from afar. Texts are
// cut to MaxText. It appends nothing when it returns an error.
func AppendResult(dst []byte, result any) ([]byte, error) {
	dst = append(dst, ResultVersion)
	switch r := result.(type) {
	case BatchResult:
		return appendBatchResult(append(dst, resultBatch), r), nil
	case error:
		var refused *RefusedError
		if !errors.As(r, &refused) {
			return appendText(append(dst, resultError), r.Error()), nil
		}
		dst = append(dst, resultRefused, byte(refused.Type), refused.Version, bit(refused.Unknown, refusedUnknown))
		dst = appendUint(dst, refused.Index)
		dst = appendText(dst, refused.Reason)
		dst = appendText(dst, refused.advice)
		return appendText(dst, r.Error()), nil
	}
	return dst[:len(dst)-1], fmt.Errorf("bug: a result of type %T has no encoding", result)
}

// DecodeResult reads a result: a BatchResult or a *RemoteError. It shares no memory
// with its bytes.
func DecodeResult(b []byte) (any, error) {
	if len(b) > MaxResult {
		return nil, fmt.Errorf("result of %d bytes, limit %d", len(b), MaxResult)
	}
	c := cursor{data: b}
	if v := c.byte(); c.err == nil && v != ResultVersion {
		return nil, fmt.Errorf("result of version %d, this build reads version %d", v, ResultVersion)
	}
	var result any
	switch kind := c.byte(); kind {
	case resultBatch:
		result = readBatchResult(&c)
	case resultError:
		result = &RemoteError{Words: c.text("error")}
	case resultRefused:
		refused := &RefusedError{
			Type:    Type(c.byte()),
			Version: c.byte(),
			Unknown: c.flags(refusedUnknown) != 0,
			Index:   c.uint(),
			Reason:  c.text("reason"),
			advice:  c.text("advice"),
		}
		result = &RemoteError{Words: c.text("error"), refused: refused}
	default:
		c.fail("result kind %d, this build knows 1 to 3", kind)
	}
	c.end()
	if c.err != nil {
		return nil, fmt.Errorf("result: %w", c.err)
	}
	return result, nil
}

func appendBatchResult(dst []byte, r BatchResult) []byte {
	dst = append(dst, bit(r.Duplicate, batchDuplicate))
	var texts texts
	body := make([]byte, 0, len(r.Records)+8)
	for i := range r.Records {
		body = texts.record(body, &r.Records[i])
	}
	dst = appendUint(dst, uint64(len(texts.list)))
	for _, s := range texts.list {
		dst = appendString(dst, s)
	}
	dst = appendUint(dst, uint64(len(r.Records)))
	return append(dst, body...)
}

// texts numbers the texts of a result in the order of their first use.
type texts struct {
	list []string
	ids  map[string]uint64
}

func (t *texts) id(s string) uint64 {
	s = cutText(s)
	if id, ok := t.ids[s]; ok {
		return id
	}
	if len(t.list) >= maxTexts-1 && s != moreTexts {
		return t.id(moreTexts)
	}
	if t.ids == nil {
		t.ids = make(map[string]uint64)
	}
	id := uint64(len(t.list))
	t.ids[s], t.list = id, append(t.list, s)
	return id
}

// resultTexts are the texts of a record's result, by bit.
func resultTexts(r *RecordResult) [3]struct {
	bit  uint64
	text *string
} {
	return [...]struct {
		bit  uint64
		text *string
	}{
		{resOpsRefused, &r.Ops.Refused},
		{resRegisterRefused, &r.Register.Refused},
		{resSyncStartReason, &r.SyncStart.Reason},
	}
}

// resultFlags are the truths of a record's result, by bit.
func resultFlags(r *RecordResult) [7]struct {
	bit  uint64
	flag *bool
} {
	return [...]struct {
		bit  uint64
		flag *bool
	}{
		{resOpsGap, &r.Ops.Gap},
		{resOpsUnknown, &r.Ops.Unknown},
		{resRegisterKnown, &r.Register.Known},
		{resSyncStartAccept, &r.SyncStart.Accepted},
		{resSyncIgnored, &r.Sync.Ignored},
		{resSyncComplete, &r.Sync.Complete},
		{resDeregistered, &r.Deregistered},
	}
}

func (t *texts) record(dst []byte, r *RecordResult) []byte {
	if *r == (RecordResult{}) { // nearly all are
		return append(dst, 0)
	}
	var bits uint64
	for _, f := range resultFlags(r) {
		if *f.flag {
			bits |= f.bit
		}
	}
	fields := resultTexts(r)
	for _, f := range fields {
		if *f.text != "" {
			bits |= f.bit
		}
	}
	if r.Ops.Late > 0 {
		bits |= resOpsLate
	}
	dst = appendUint(dst, bits)
	for _, f := range fields {
		if *f.text != "" {
			dst = appendUint(dst, t.id(*f.text))
		}
	}
	if r.Ops.Late > 0 {
		dst = appendUint(dst, uint64(r.Ops.Late))
	}
	return dst
}

func readBatchResult(c *cursor) BatchResult {
	r := BatchResult{Duplicate: c.flags(batchDuplicate) != 0}
	var texts []string
	n := c.count("texts", 2)
	if n > maxTexts {
		c.fail("%d texts, limit %d", n, maxTexts)
	}
	for range n {
		if c.err != nil {
			return BatchResult{}
		}
		s := c.text("text")
		if c.err == nil && s == "" {
			c.fail("text is empty")
		}
		texts = append(texts, s)
	}
	n = c.count("records", 1)
	if c.err == nil && r.Duplicate && n+len(texts) > 0 {
		c.fail("a duplicate has %d texts and %d records, want none", len(texts), n)
	}
	if c.err != nil || r.Duplicate {
		return r
	}
	r.Records = make([]RecordResult, n)
	for i := range r.Records {
		if readRecordResult(c, &r.Records[i], texts); c.err != nil {
			return BatchResult{}
		}
	}
	return r
}

func readRecordResult(c *cursor, r *RecordResult, texts []string) {
	bits := c.uint()
	if bits == 0 {
		return
	}
	if bits&^knownResultBits != 0 {
		c.fail("result bits %x, this build knows %x", bits, knownResultBits)
		return
	}
	for _, f := range resultFlags(r) {
		*f.flag = bits&f.bit != 0
	}
	for _, f := range resultTexts(r) {
		if bits&f.bit == 0 {
			continue
		}
		if i := c.index("text", len(texts)); c.err == nil {
			*f.text = texts[i]
		}
	}
	if bits&resOpsLate == 0 {
		return
	}
	if n := c.uint(); c.err == nil && (n == 0 || n > MaxEntry/keyWidth) {
		c.fail("%d late operations, want 1 to %d", n, MaxEntry/keyWidth)
	} else {
		r.Ops.Late = int(n)
	}
}
