package registry

// slotTable finds what a search noted of an instance, worker or stream by its slot.
// It is cleared in the time that was used, not in its size. A slot may have got a new
// owner since it was noted; the note tells.
type slotTable struct {
	at   []int32 // position of the note plus one; 0 for none
	used []uint32
}

// get returns the position noted for a slot, or -1.
func (t *slotTable) get(slot uint32) int32 {
	if int(slot) >= len(t.at) {
		return -1
	}
	return t.at[slot] - 1
}

// set notes a position for a slot, in the place of what its last owner had.
func (t *slotTable) set(slot uint32, pos int) {
	if int(slot) >= len(t.at) {
		t.at = append(t.at, make([]int32, int(slot)+1-len(t.at))...)
	}
	t.at[slot] = int32(pos) + 1
	t.used = append(t.used, slot)
}

func (t *slotTable) reset() {
	for _, slot := range t.used {
		t.at[slot] = 0
	}
	t.used = t.used[:0]
}
