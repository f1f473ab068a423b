package ingest

import (
	"fmt"
	"strings"
	"time"

	"github.com/kvctrl/kvctrl/fsm"
	"github.com/kvctrl/kvctrl/registry"
)

// tell writes an entry down in the words of the scenario files.
func (m *model) tell(index uint64, value any) {
	batch, ok := value.(fsm.WorkerBatch)
	if !ok {
		m.t.Logf("%d: %T %+v", index, value, value)
		return
	}
	for _, r := range batch.Records {
		line := ""
		switch r := r.(type) {
		case registry.Registration:
			verb := "register"
			if r.ByHeartbeat {
				verb = "heartbeat"
			}
			line = fmt.Sprintf("%s %s ago=%s", verb, storyName(r.WorkerRef), m.ago(r.At))
		case fsm.Deregistration:
			line = fmt.Sprintf("deregister %s ago=%s", storyName(r.WorkerRef), m.ago(r.At))
		case registry.Ops:
			var ops strings.Builder
			for i, k := range r.Keys {
				fmt.Fprintf(&ops, " %c%d", "+-"[map[bool]int{true: 1}[r.Evict.Has(i)]], k)
			}
			line = fmt.Sprintf("ops %s %s seq=%d ago=%s%s", storyName(r.Stream.WorkerRef), r.Stream.Location, r.First, m.ago(r.At), ops.String())
		case registry.SyncStart:
			line = fmt.Sprintf("sync-start %s %s id=%s batches=%d ago=%s", storyName(r.Stream.WorkerRef), r.Stream.Location, r.SyncID, r.BatchCount, m.ago(r.At))
		case registry.SyncBatch:
			line = fmt.Sprintf("sync-batch %s %s id=%s batch=%d %v", storyName(r.Stream.WorkerRef), r.Stream.Location, r.SyncID, r.BatchID, r.Keys)
		case registry.SyncEnd:
			line = fmt.Sprintf("sync-end %s %s id=%s", storyName(r.Stream.WorkerRef), r.Stream.Location, r.SyncID)
		}
		m.t.Logf("%d: by %x.%d: %s", index, batch.Session[:2], batch.Number, line)
	}
}

func storyName(w registry.WorkerRef) string { return fmt.Sprintf("%s/%d", w.Instance, w.Worker) }

func (m *model) ago(at registry.Micros) string {
	return (time.Duration(micros(m.now)-at) * time.Microsecond).String()
}
