package registry

// sequence judges the numbers of a stream. LMCache numbers the operations of each
// backend on its own, from 0, for as long as the worker's process lives. Some
// releases send 0 in every message of a backend that does not number.
type sequence struct {
	begun      bool  // a number has been seen
	unnumbered bool  // all numbers were 0, more than one: not judged
	loneZero   bool  // one number has been seen, and it was 0
	next       int64 // the number that would follow
	counted    bool  // a gap of the current message has been counted

	writer SessionID // whose operations were applied last
	holes  []hole    // numbers that were passed over, ascending
}

// birth is what is known of the beginning of a stream's numbers.
type birth struct {
	// fromZero: its worker's process registered itself, and counts from 0.
	fromZero bool
	// at is when the worker was registered.
	at Micros
}

// verdict is what the numbers of a run say of it.
type verdict struct {
	late  int  // so many operations at its beginning come too late: not to be applied
	lossy bool // what is applied of it does not follow what came before, or what is late may not be
	gap   bool // lossy, and there was a number before: LMCache counts that
}

// judge takes the numbers of a run. A gap, a step back and a repeat break with what
// came before. The first number is free, but when the worker's process is known to have
// begun since, what it began with is missing.
func (q *sequence) judge(o Ops, b birth) (v verdict) {
	if !o.Continues {
		q.counted = false
	}
	if !o.Numbered {
		return v
	}
	first, length := o.First, len(o.Keys)
	if q.unnumbered || q.loneZero && first == 0 {
		return q.unnumberedRun(o)
	}
	// What is in order may still be an earlier process's, when it was taken before this one
	// registered and its numbers happen to fit; or two replicas' clocks are apart. Then it is
	// this process's, so it is applied, and not trusted.
	early := o.Session != q.writer && o.At+lateGrace < b.at
	switch {
	case q.begun && first == q.next, !q.begun && (first == 0 || !b.fromZero):
		v.lossy = early
	default:
		if o.Session != q.writer {
			if v.late, v.lossy = q.late(o, b); v.late == length {
				return v
			}
		}
		if first += int64(v.late); v.late > 0 && first == q.next {
			v.lossy = v.lossy || early
			break
		}
		v.lossy, v.gap = true, q.begun
		q.jump(first, o.At)
	}
	q.loneZero = !q.begun && first == 0 && length == 1
	q.begun, q.writer = true, o.Session
	q.next = o.First + int64(length)
	return v
}

// unnumberedRun takes a run of a stream whose numbers were all 0, and more than one. With
// another number it shows that it counts after all: 0 was said by two processes, or came
// twice, and what was lost meanwhile nobody has seen.
func (q *sequence) unnumberedRun(o Ops) (v verdict) {
	if o.First == 0 && len(o.Keys) == 1 {
		*q = sequence{begun: true, unnumbered: true}
		return v
	}
	*q = sequence{begun: true, next: o.First + int64(len(o.Keys)), writer: o.Session, counted: q.counted}
	return verdict{lossy: true, gap: true}
}

// count reports whether a gap found now is the first of its message.
func (q *sequence) count() bool {
	first := !q.counted
	q.counted = true
	return first
}
