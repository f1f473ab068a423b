package tokenizer

import (
	"cmp"
	"container/heap"
)

// bpe joins bytes to tokens, pair by pair.
type bpe struct {
	vocab  map[string]int64 // of the tokens' bytes
	texts  map[string]int64 // and of their texts in the file; only while that is read
	bytes  [256]int64       // the token of each single byte
	merges map[pair]merge
	// whole is set when a word that is a token as it stands is not joined: what its
	// merges would lead to may be something else.
	whole bool
}

type pair struct{ left, right int64 }

type merge struct {
	rank int // the lowest first
	id   int64
}

// append adds a word's ids.
func (b *bpe) append(ids []int64, word string) []int64 {
	if id, known := b.vocab[word]; known && (b.whole || len(word) == 1) {
		return append(ids, id)
	}
	w := joining{bpe: b, parts: make([]part, len(word))}
	for i := range len(word) {
		w.parts[i] = part{id: b.bytes[word[i]], prev: i - 1, next: i + 1}
	}
	w.parts[len(word)-1].next = -1
	for i := range w.parts {
		w.propose(i)
	}
	for w.Len() > 0 {
		w.join(heap.Pop(&w).(proposal))
	}
	for i := 0; i >= 0; i = w.parts[i].next {
		ids = append(ids, w.parts[i].id)
	}
	return ids
}

// joining is a word under way: its parts as a list, and the pairs that could be joined.
type joining struct {
	bpe   *bpe
	parts []part
	heap  []proposal
}

type part struct {
	id         int64
	prev, next int // -1 at the ends; prev is -2 once it has been joined to the one before
}

// gone marks a part that is no longer in the list.
const gone = -2

// proposal is to join a part to the one after it. It is void when one of them has been
// joined to something else.
type proposal struct {
	merge
	pair pair
	at   int
}

// propose adds the pair that begins at a part, if there is a merge for it.
func (w *joining) propose(at int) {
	next := w.parts[at].next
	if next < 0 {
		return
	}
	p := pair{w.parts[at].id, w.parts[next].id}
	if m, known := w.bpe.merges[p]; known {
		heap.Push(w, proposal{m, p, at})
	}
}

func (w *joining) join(p proposal) {
	left := &w.parts[p.at]
	if left.prev == gone || left.id != p.pair.left || left.next < 0 || w.parts[left.next].id != p.pair.right {
		return
	}
	right := &w.parts[left.next]
	left.id = p.id
	left.next = right.next
	right.prev = gone
	if left.next >= 0 {
		w.parts[left.next].prev = p.at
	}
	w.propose(p.at)
	if left.prev >= 0 {
		w.propose(left.prev)
	}
}

// The proposals as a heap: by rank, and of one rank from left to right.

func (w *joining) Len() int { return len(w.heap) }
func (w *joining) Less(i, j int) bool {
	a, b := &w.heap[i], &w.heap[j]
	return cmp.Or(cmp.Compare(a.rank, b.rank), cmp.Compare(a.at, b.at)) < 0
}
func (w *joining) Swap(i, j int) { w.heap[i], w.heap[j] = w.heap[j], w.heap[i] }
func (w *joining) Push(x any)    { w.heap = append(w.heap, x.(proposal)) }
func (w *joining) Pop() any {
	last := len(w.heap) - 1
	x := w.heap[last]
	w.heap = w.heap[:last]
	return x
}
