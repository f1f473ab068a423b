package lmcache

import "testing"

func BenchmarkDecodeBatch100(b *testing.B) {
	frame := Append(nil, batchOf(100))
	b.ReportAllocs()
	b.SetBytes(int64(len(frame)))
	for b.Loop() {
		if _, err := Decode(frame); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/100, "ns/operation")
}

func BenchmarkDecode(b *testing.B) {
	keys := make([]Key, 2000)
	for i := range keys {
		keys[i] = Key(i) * 0x9e3779b97f4a7c15
	}
	for _, bm := range []struct {
		name string
		m    Message
	}{
		{"batch of 1", batchOf(1)},
		{"sync batch of 2000", &FullSyncBatchMsg{InstanceID: "vllm-0", Location: "LocalCPUBackend", SyncID: "vllm-0_0_1a2b3c4d", Keys: keys}},
		{"p2p lookup of 100", &BatchedP2PLookupMsg{InstanceID: "vllm-0", Hashes: keys[:100]}},
		{"heartbeat", &HeartbeatMsg{InstanceID: "vllm-0", IP: "10.0.0.1", Port: 8001, PeerInitURL: ptr("10.0.0.1:8201")}},
		{"clear answer", &ClearWorkerRetMsg{NumTokens: 768}},
	} {
		b.Run(bm.name, func(b *testing.B) {
			frame := Append(nil, bm.m)
			b.ReportAllocs()
			b.SetBytes(int64(len(frame)))
			for b.Loop() {
				if _, err := Decode(frame); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
	b.Run("json batch of 100", func(b *testing.B) {
		frame := jsonBatch(100)
		b.ReportAllocs()
		b.SetBytes(int64(len(frame)))
		for b.Loop() {
			if _, err := Decode(frame); err != nil {
				b.Fatal(err)
			}
		}
	})
}

func jsonBatch(n int) []byte {
	frame := []byte(`{"type":"BatchedKVOperationMsg","instance_id":"vllm-0","worker_id":1,"location":"LocalCPUBackend","operations":[`)
	for i := range n {
		if i > 0 {
			frame = append(frame, ',')
		}
		frame = append(frame, `{"op_type":"admit","key":6847123751949154252,"seq_num":100000}`...)
	}
	return append(frame, "]}"...)
}

func BenchmarkAppend(b *testing.B) {
	for _, bm := range []struct {
		name string
		m    Message
	}{
		{"register answer", &RegisterRetMsg{ExtraConfig: []StringPair{{"heartbeat_url", "10.0.0.9:8082"}}}},
		{"heartbeat answer", &HeartbeatRetMsg{}},
		{"heartbeat answer, full sync", &HeartbeatRetMsg{Commands: []HeartbeatCommand{{CommandType: "full_sync", Reason: ptr("controller_restart")}}}},
		{"p2p answer", &BatchedP2PLookupRetMsg{LayoutInfo: []P2PLayout{{"vllm-1", "LocalCPUBackend", 2, "10.0.0.2:8200"}}}},
		{"sync status answer", &FullSyncStatusRetMsg{SyncID: "vllm-0_0_1a2b3c4d", GlobalProgress: 0.5}},
		{"error", &ErrorMsg{Error: "unknown message"}},
		{"clear command", &ClearWorkerMsg{WorkerEventID: "Worker0Clear6b0e2c9e-6a0f-4f0e-9d53-0d7a1f4a2b11", Location: "LocalCPUBackend"}},
		{"batch of 100", batchOf(100)},
	} {
		b.Run(bm.name, func(b *testing.B) {
			var buf []byte
			b.ReportAllocs()
			for b.Loop() {
				buf = Append(buf[:0], bm.m)
			}
			b.SetBytes(int64(len(buf)))
		})
	}
}
