// Package memnet is a network in memory whose links can be made to fail, for tests
// of several replicas in one process, above all in the virtual time of
// testing/synctest: whoever waits in it waits on a channel, so a bubble's clock can
// go on, and nothing here starts a goroutine.
//
// It behaves like TCP between hosts that have names instead of addresses. What is
// written arrives once and in order, or the connection breaks; a bounded number of
// bytes is under way, then the writer waits. Faults are of directed links:
//
//	n := memnet.New(seed)
//	a, b := n.Host("a"), n.Host("b")
//	l, err := b.Listen(ctx, "b:9400")
//	c, err := a.Dial(ctx, "b:9400")
//	n.Cut("a", "b")   // what a sends is held, as TCP would send it again; dials wait
//	n.Heal("a", "b")  // and arrives now
//	n.Delay("a", "b", 20*time.Millisecond, 5*time.Millisecond)
//	n.Reset("a", "b") // connections between the two break at both ends
//	b.Down()          // as kill -9: connections break, dials are refused
//	b.Up()
//
// A connection needs both directions to be made. Over one that is cut in one
// direction, the other still carries as many bytes as fit into the window, because
// acknowledgements do not come back.
//
// Limits: no bandwidth, no loss (it would show as delay), no timeout of an idle
// connection. Everything of one network must be made in one bubble, or outside any.
//
// Concurrency: any goroutine may call anything. One mutex guards a network; it is
// held for the copy of at most Window bytes.
package memnet
