// Package httpapi is the REST side of a replica: LMCache's endpoints, field for field
// as its own controller answers them, the endpoints of kvctrl, metrics and a page.
// It runs on every replica.
//
// It never changes the state itself: commands go to the executor of the replica that leads,
// changes of the cluster to its node, everything else is a question to the local registry.
// It never trusts a body: what does not fit is answered with 4xx before anything else
// happens, and neither a body nor a panic in a handler ends the process.
//
// The way of a request:
//
//  1. track (middleware.go): counted, timed, freshness headers, panics caught;
//  2. the route (routes.go, one table), which knows its body's fields (bodies.go);
//  3. the body: size (body.go), JSON (scan.go), fields and coercions (validate.go), or
//     for the common lookup a scanner of its own (fastbody.go);
//  4. the query parameters (params.go), and the wait for the freshness they ask for;
//  5. the answer, or an error, which problem.go turns into status, code and advice.
//
// A mutation (a route with mutate) goes another way from step 4 on (mutation.go): this
// replica carries it out if it leads, else the leader does (forward.go), whose PeerHandler
// takes it from there through the same steps (peers.go). The answer is the same, byte for
// byte.
//
// Usage:
//
//	s, err := httpapi.New(httpapi.Options{Addr: ":9000", Node: node, State: fsm,
//		Executor: exec, Ingest: workers, Finder: finder})
//	err = s.Open()     // listens; Addr tells where
//	err = s.Serve(ctx) // until ctx ends; then lets requests finish
//	err = s.Close(ctx)
//	cluster.Options{PeerHandlers: map[string]http.Handler{"/rest/": s.PeerHandler()}}
//
// Callers: cmd/kvctrld.
//
// Goroutines: net/http's, one per connection; one more beside a mutation that is being
// forwarded, which looks whether anybody leads. Close waits until the
// last handler has returned, those of the peer port too. Handlers share nothing but atomics, pools and the metrics.
package httpapi
