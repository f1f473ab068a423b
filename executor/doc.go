// Package executor is the side of the controller that acts on workers: clear, pin,
// compress, decompress, move and health. It runs on the leader only.
//
// A command is an event in the log. Its way (Do):
//
//  1. plan: which workers, which message to each; refused here, nothing is logged;
//  2. entry "event created": from now on the event's id stands for this command;
//  3. wait until every worker of the command is free (one request in flight each),
//     and look again where they are;
//  4. entry "event running": from here on workers may have it;
//  5. send to all workers side by side, each with a deadline;
//  6. entry "event finished" with every worker's outcome.
//
// A leader that is lost between 4 and 6 leaves a running event; the next term's first
// entry turns it into "interrupted" and nobody sends it again. That, and a transport
// that never sends twice, is how a command reaches a worker at most once. DESIGN.md has
// what a client is told meanwhile.
//
// The index is never changed here: the workers' own admits and evicts change it. The end of
// a move says what its destination's are to be (arrival.go).
//
// Health is not an event. It changes nothing, monitors ask for it all the time, and
// it would fill the log.
//
// Concurrency: all methods may be called from any goroutine. Every command has one
// goroutine of its own, started by Do and waited for by Lead, so that losing
// leadership ends them all before the next term's can start.
package executor
