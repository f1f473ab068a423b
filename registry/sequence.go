package registry

// sequence judges the numbers of a stream. LMCache numbers the operations of each
// backend on its own, from 0, for as long as the worker's process lives. Some
// releases send 0 in every message of a backend that does not number.
type sequence struct {
	begun      bool  // a number has been seen
	unnumbered bool  // the first two numbers were both 0: never judged
	loneZero   bool  // one number has been seen, and it was 0
	next       int64 // the number that would follow
	counted    bool  // a gap of the current message has been counted
}

// judge takes the numbers of a run and reports whether they break with what came
// before: a gap, a step back or a repeat. The first number of a stream is free.
func (q *sequence) judge(o Ops) (broken bool) {
	if !o.Continues {
		q.counted = false
	}
	if !o.Numbered || q.unnumbered {
		return false
	}
	switch {
	case !q.begun:
		q.begun = true
		q.loneZero = o.First == 0 && len(o.Keys) == 1
	case q.loneZero && o.First == 0:
		*q = sequence{begun: true, unnumbered: true}
		return false
	default:
		broken = o.First != q.next
		q.loneZero = false
	}
	q.next = o.First + int64(len(o.Keys))
	return broken
}

// count reports whether a gap found now is the first of its message.
func (q *sequence) count() bool {
	first := !q.counted
	q.counted = true
	return first
}
