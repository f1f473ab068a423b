// Package simworker is a simulated LMCache worker: everything of a real one but the
// KV data. It speaks the wire protocol of LMCache 0.3.12 to 0.5.6 over real sockets.
//
// A Worker registers (DEALER), sends heartbeats where the controller tells it to,
// pushes admits and evicts with sequence numbers per location, does full syncs when
// commanded, asks for peers, and serves its command port: clear, pin, compress,
// decompress, move, health. Behind that is a chunk store with a capacity and the
// eviction order of LMCache's CPU cache. Two Workers that know each other (Peers) move
// chunks between them. Scripts replace answers: late, none, or any bytes.
//
// A Fleet is many of them with a seeded workload: the same seed stores the same
// prompts in the same order, whatever the machine does.
//
//	f, err := simworker.NewFleet(simworker.FleetOptions{Instances: 4, Ranks: 2, Seed: 1,
//		Endpoints: []simworker.Endpoint{{Pull: "127.0.0.1:8300", Reply: "127.0.0.1:8400"}}})
//	err = f.Start(ctx)
//	err = f.Run(ctx, 100) // prompts a second, until ctx ends
//	f.Stop()
//
// What it does not simulate: disk (a location named so is only a name), layer-wise
// mode, and LMCache's bugs (ghosts, a source deleted although the target failed).
//
// Callers: kvctrld simulate and bench, the demo, tests of all rooms. It does not import
// ingest: it knows the controller by the wire alone.
//
// Goroutines of a Worker, all waited for by Stop and Kill: sender, two requesters (the
// heartbeat's only when there is one), heartbeat, command port, and a full sync while
// one runs. A ZeroMQ socket belongs to one of them.
package simworker
