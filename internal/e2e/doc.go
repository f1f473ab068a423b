// Package e2e drives the real kvctrld binary as a process: it builds it once, starts
// it on free ports with a data directory of its own, asks it over HTTP and ZMQ, kills
// it and starts it again.
//
// The exported part is for tests of any package (crash, bad input, restart):
//
//	func TestMain(m *testing.M) { os.Exit(e2e.Run(m)) }
//
//	r := e2e.Start(t, e2e.Options{Args: []string{"--worker-deadline", "2s"}})
//	...            // r.URL("/lookup"), r.PullAddr(), r.ReplyAddr(), r.HeartbeatAddr()
//	r.Kill()       // SIGKILL, waits for the end
//	r.Restart()    // same data directory, same ports; returns when it is ready
//	r.Terminate()  // SIGTERM, returns the exit code
//
// A cluster is several of them:
//
//	c := e2e.StartCluster(t, 3, e2e.ClusterOptions{Namespaces: true})
//	leader := c.Leader()
//	c.Isolate(leader)   // c.Cut for one direction; c.Heal ends it
//	leader.Pause()      // SIGSTOP; leader.Resume()
//	c.Await()           // all that run are ready and name one leader
//	c.Converge()        // the same digest at the same index on all
//
// The package's own tests replay LMCache's recorded answers (testdata/rest.jsonl,
// zmq.jsonl, fleets.json) against it; DESIGN.md says how they are judged.
//
// Cluster tests have a long form: -e2e.long.
//
// Goroutines: one for each running process, which ends with the process; Kill,
// Terminate and the test's cleanup wait for it.
package e2e
