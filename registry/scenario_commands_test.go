package registry

import (
	"encoding/binary"
	"fmt"
	"strings"
)

// commands are the words of the scenario files, by topic. Times are in seconds.
var commands = map[string]func(*player, *words) string{
	// Time: every later command carries it.
	"at": func(p *player, w *words) string {
		p.now = Micros(w.int(w.next())) * second
		return ""
	},
	"after": func(p *player, w *words) string {
		p.now += Micros(w.int(w.next())) * second
		return ""
	},

	// Bounds: only as the first command.
	"options": func(p *player, w *words) string {
		p.opts.MaxEvents = int(w.number("max-events", 0))
		p.opts.MaxOpenEvents = int(w.number("max-open-events", 0))
		p.opts.MaxSessions = int(w.number("max-sessions", 0))
		p.opts.MaxWorkers = int(w.number("max-workers", 0))
		p.opts.MaxRanks = int(w.number("max-ranks", 0))
		p.opts.MaxLocations = int(w.number("max-locations", 0))
		p.opts.MaxSyncEvicts = int(w.number("max-sync-evicts", 0))
		p.opts.ConfirmWithin = Micros(w.number("confirm-within", 0)) * second
		p.opts.SyncThreshold = float64(w.number("sync-threshold-percent", 0)) / 100
		p.reg = New(p.opts)
		return ""
	},

	// Workers.
	"register":  func(p *player, w *words) string { return p.register(w, false) },
	"heartbeat": func(p *player, w *words) string { return p.register(w, true) },
	"deregister": func(p *player, w *words) string {
		if !p.reg.Deregister(w.worker(w.next()), p.said(w)) {
			return "unknown"
		}
		return ""
	},
	"lease": func(p *player, w *words) string {
		l := Lease{At: p.now, Expired: w.workers("expired")}
		l.SuspectAfter = Micros(w.number("suspect-after", 0)) * second
		l.SyncTimeout = Micros(w.number("sync-timeout", 0)) * second
		for _, ref := range w.workers("heard") {
			l.Heard = append(l.Heard, Heard{WorkerRef: ref, Any: p.now})
		}
		for _, ref := range w.workers("beat") {
			l.Heard = append(l.Heard, Heard{WorkerRef: ref, Any: p.now, Heartbeat: p.now})
		}
		p.reg.Lease(l)
		return ""
	},

	// Events of streams: ops WORKER LOCATION [seq=N] [by=SESSION] [ago=SECONDS] +1..3 -2
	"ops": func(p *player, w *words) string {
		o := Ops{Stream: w.stream(), At: p.said(w), Continues: w.has("continues")}
		copy(o.Session[:], w.named["by"])
		_, o.Numbered = w.named["seq"]
		o.First = w.number("seq", 0)
		for len(w.plain) > 0 {
			word := w.next()
			for _, k := range w.keyRange(word[1:]) {
				if n := len(o.Keys); word[0] == '-' {
					for len(o.Evict) <= n/8 {
						o.Evict = append(o.Evict, 0)
					}
					o.Evict[n/8] |= 1 << (n % 8)
				}
				o.Keys = append(o.Keys, k)
			}
		}
		res := p.reg.ApplyOps(o)
		switch {
		case res.Unknown:
			return "unknown worker"
		case res.Refused != "":
			return "refused: " + res.Refused
		}
		var out []string
		if res.Late > 0 {
			out = append(out, fmt.Sprintf("%d late", res.Late))
		}
		if res.Gap {
			out = append(out, "gap")
		}
		return strings.Join(out, ", ")
	},

	// Full syncs.
	"sync-start": func(p *player, w *words) string {
		s := SyncStart{Stream: w.stream(), SyncID: w.named["id"], BatchCount: w.number("batches", 1), TotalKeys: w.number("keys", 0), At: p.said(w)}
		if res := p.reg.SyncStart(s); !res.Accepted {
			return "refused: " + res.Reason
		}
		return ""
	},
	"sync-batch": func(p *player, w *words) string {
		b := SyncBatch{Stream: w.stream(), SyncID: w.named["id"], BatchID: w.number("batch", 0), At: p.now}
		b.Keys = w.keys()
		return syncWord(p.reg.SyncBatch(b))
	},
	"sync-end": func(p *player, w *words) string {
		return syncWord(p.reg.SyncEnd(SyncEnd{Stream: w.stream(), SyncID: w.named["id"], At: p.now}))
	},
	"sync-status": func(p *player, w *words) string {
		s := p.reg.SyncStatus(w.worker(w.next()), w.named["id"], p.now)
		return fmt.Sprintf("complete=%v exit=%v progress=%.2f missing=%v", s.Complete, s.CanExitFreeze, s.Progress, s.MissingBatches)
	},
	"wanted": func(p *player, w *words) string {
		owed, ok := p.reg.SyncWanted(w.worker(w.next()))
		switch {
		case !ok:
			return "no"
		case owed.Failures > 0:
			return fmt.Sprintf("%s, %d failed, last at %d", owed.Reason, owed.Failures, owed.FailedAt/second)
		}
		return owed.Reason
	},

	// Commands of operators.
	"event-create": func(p *player, w *words) string {
		c := EventCreate{ID: w.next(), Kind: CommandKind(w.next()), Dest: w.target("dest"), Term: uint64(w.number("term", 0)), At: p.now}
		binary.BigEndian.PutUint64(c.Fingerprint[:], uint64(w.number("fingerprint", 0)))
		switch res := p.reg.CreateEvent(c); {
		case res.Refused != "":
			return "refused: " + res.Refused
		case res.Conflict:
			return "conflict with " + eventWord(res.Event)
		case res.Existing:
			return "there is " + eventWord(res.Event)
		}
		return ""
	},
	"event-run": func(p *player, w *words) string {
		return errWord(p.reg.RunEvent(EventRun{ID: w.next(), Term: uint64(w.number("term", 0)), Workers: w.workers("workers"), At: p.now}))
	},
	"event-finish": func(p *player, w *words) string {
		f := EventFinish{ID: w.next(), State: EventState(w.next()), Term: uint64(w.number("term", 0)), NumTokens: w.number("tokens", 0), At: p.now}
		for _, ref := range w.workers("workers") {
			f.Workers = append(f.Workers, WorkerOutcome{WorkerRef: ref, State: f.State, NumTokens: f.NumTokens})
		}
		if _, ok := w.named["confirm"]; ok {
			f.Confirm = &Confirmation{Key: Key(w.number("confirm", 0))}
			for _, rank := range strings.Split(w.named["ranks"], ",") {
				f.Confirm.Ranks = append(f.Confirm.Ranks, w.int(rank))
			}
		}
		return errWord(p.reg.FinishEvent(f))
	},
	"event": func(p *player, w *words) string {
		e, ok := p.reg.Event(w.next())
		if !ok {
			return "unknown"
		}
		return eventWord(e)
	},
	"events": func(p *player, w *words) string {
		var b strings.Builder
		for _, e := range p.reg.Events(int(w.number("limit", 0))) {
			fmt.Fprintln(&b, eventWord(e))
		}
		return b.String()
	},
	"term": func(p *player, w *words) string {
		lost := p.reg.BeginTerm(TermBegin{Term: uint64(w.int(w.next())), Node: w.named["node"], At: p.now})
		if len(lost) > 0 {
			return "interrupted " + strings.Join(lost, " ")
		}
		return ""
	},

	// Replicas.
	"member": func(p *player, w *words) string {
		p.reg.SetMember(Member{NodeID: w.next(), PeerAddr: w.named["peer"], URL: w.named["url"], Voter: w.has("voter")})
		return ""
	},
	"remove-member": func(p *player, w *words) string {
		p.reg.RemoveMember(w.next())
		return ""
	},
	"members": func(p *player, w *words) string {
		var b strings.Builder
		for _, m := range p.reg.Members() {
			fmt.Fprint(&b, m.NodeID, " ", m.PeerAddr, " ", m.URL)
			if m.Voter {
				b.WriteString(" voter")
			}
			b.WriteString("\n")
		}
		return b.String()
	},
	"batch": func(p *player, w *words) string {
		var id SessionID
		copy(id[:], w.next())
		if !p.reg.AcceptBatch(id, uint64(w.int(w.next())), p.now) {
			return "applied before"
		}
		return "new"
	},

	// Questions.
	"lookup": func(p *player, w *words) string {
		var b strings.Builder
		for _, h := range lookup(p.reg, w.named["instance"], w.keys()) {
			fmt.Fprintf(&b, "%s %s %d", h.Instance, short(h.Location), h.Chunks)
			if h.Suspect {
				b.WriteString(" suspect")
			}
			if h.Lossy {
				b.WriteString(" lossy")
			}
			b.WriteByte('\n')
		}
		if b.Len() == 0 {
			return "nobody"
		}
		return b.String()
	},
	"p2p": func(p *player, w *words) string {
		asker := w.worker(w.next())
		hit, ok := p.reg.P2PLookup(asker, w.keys())
		if !ok {
			return "nobody"
		}
		return fmt.Sprintf("%s %s %d at %s", hit.Instance, short(hit.Location), hit.Chunks, hit.PeerInitURL)
	},
	"holders": func(p *player, w *words) string {
		var b strings.Builder
		for _, k := range w.keys() {
			fmt.Fprintf(&b, "%d:", k)
			for _, ref := range p.reg.Holders(k) {
				fmt.Fprintf(&b, " %s %s", str(ref.WorkerRef), short(ref.Location))
			}
			b.WriteByte('\n')
		}
		return b.String()
	},
	"workers": func(p *player, w *words) string {
		var b strings.Builder
		instance := ""
		if len(w.plain) > 0 {
			instance = w.next()
		}
		for _, i := range p.reg.Workers(instance) {
			peer := "-"
			if i.PeerInitURL != nil {
				peer = *i.PeerInitURL
			}
			failures := ""
			if i.SyncFailures > 0 {
				failures = fmt.Sprintf(" (%d failed, last at %d)", i.SyncFailures, i.SyncFailed/second)
			}
			fmt.Fprintf(&b, "%s %s:%d peer %s, %s, heard at %d, sync %s%s, %d keys\n", str(i.WorkerRef), i.IP, i.Port, peer,
				i.Liveness, i.LastHeard/second, i.SyncState, failures, i.Keys)
			for _, l := range i.Locations {
				fmt.Fprintf(&b, "  %s: %d keys", short(l.Location), l.Keys)
				if l.Numbered {
					fmt.Fprintf(&b, ", next %d", l.NextSeq)
				}
				if l.Gaps > 0 {
					fmt.Fprintf(&b, ", %d gaps", l.Gaps)
				}
				if l.Lossy {
					b.WriteString(", lossy")
				}
				b.WriteByte('\n')
			}
		}
		return b.String()
	},
	"instance-by-ip": func(p *player, w *words) string {
		instance, ok := p.reg.InstanceByIP(w.next())
		if !ok {
			return "nobody"
		}
		return instance
	},
	"totals": func(p *player, w *words) string {
		t := p.reg.Totals()
		late := ""
		if t.Late > 0 {
			late = fmt.Sprintf("%d late, ", t.Late)
		}
		unrepaired, awaited := "", ""
		if t.UnrepairedWorkers > 0 {
			unrepaired = fmt.Sprintf(", %d unrepaired", t.UnrepairedWorkers)
		}
		if t.AwaitedMoves > 0 {
			awaited = fmt.Sprintf(", %d awaited", t.AwaitedMoves)
		}
		return fmt.Sprintf("%d instances, %d workers (%d suspect, %d wanted%s, %d syncing, %d synced), %d keys, %d gaps, %s%d lossy, %d batches missing, progress %.2f, %d events (%d open%s), %d sessions",
			t.Instances, t.Workers, t.SuspectWorkers, t.WantedWorkers, unrepaired, t.SyncingWorkers, t.SyncedWorkers, t.Keys, t.Gaps,
			late, t.LossyStreams, t.MissingBatches, t.SyncProgress, t.Events, t.OpenEvents, awaited, t.Sessions)
	},

	// Digests: mark one, and ask later whether it is that again.
	"mark": func(p *player, w *words) string {
		p.marked[w.next()] = p.reg.Digest()
		return ""
	},
	"is": func(p *player, w *words) string {
		if p.marked[w.next()] == p.reg.Digest() {
			return "the same"
		}
		return "another"
	},
}

func (p *player) register(w *words, byHeartbeat bool) string {
	g := Registration{WorkerRef: w.worker(w.next()), IP: "10.0.0.1", Port: w.number("port", 1), At: p.said(w), ByHeartbeat: byHeartbeat}
	if ip, ok := w.named["ip"]; ok {
		g.IP = ip
	}
	if peer, ok := w.named["peer"]; ok {
		g.PeerInitURL = &peer
	}
	switch res := p.reg.Register(g); {
	case res.Refused != "":
		return "refused: " + res.Refused
	case res.Known && !byHeartbeat:
		return "known"
	case !res.Known && byHeartbeat:
		return "unknown"
	}
	return ""
}

// said is when a worker said it: now, or ago=SECONDS.
func (p *player) said(w *words) Micros { return p.now - Micros(w.number("ago", 0))*second }

func syncWord(res SyncResult) string {
	switch {
	case res.Complete:
		return "complete"
	case res.Ignored:
		return "ignored"
	}
	return ""
}

func errWord(err error) string {
	if err == nil {
		return ""
	}
	return "refused: " + err.Error()
}

func eventWord(e Event) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s %s", e.ID, e.Kind, e.State)
	if e.NumTokens > 0 {
		fmt.Fprintf(&b, " tokens=%d", e.NumTokens)
	}
	for _, w := range e.Workers {
		fmt.Fprintf(&b, " [%s %s]", str(w.WorkerRef), w.State)
	}
	if e.Confirmed != "" {
		fmt.Fprintf(&b, " %s", e.Confirmed)
	}
	if e.Detail != "" {
		fmt.Fprintf(&b, " (%s)", e.Detail)
	}
	return b.String()
}
