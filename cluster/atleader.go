package cluster

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"
)

// leaderCall is something that only the leader can do, and how it is done when that
// is this node or another. again says that it was not done because of who leads: that
// may be over in a moment, and then it is tried once more.
type leaderCall struct {
	here  func(ctx context.Context, term uint64) (again bool, err error)
	there func(ctx context.Context, to peerTarget) (again bool, err error)
}

// maxHolds bounds how long a call is held while one leader follows the other.
const maxHolds = 5

// atLeader does it where the leader is. While there is none, or the one that is known
// does not do it, it waits, up to two election timeouts for each leader that comes, and
// then returns ErrNoLeader. Without an error of the call's own nothing was done.
func (n *Node) atLeader(ctx context.Context, c leaderCall) error {
	begin := time.Now()
	deadline := begin.Add(n.times.hold())
	hold := time.NewTimer(n.times.hold())
	defer hold.Stop()
	var last string // who was known to lead
	for {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		s, changed := n.view.get()
		if s.leader != "" && s.leader != last {
			if last = s.leader; time.Since(begin) < (maxHolds-1)*n.times.hold() {
				deadline = time.Now().Add(n.times.hold())
				hold.Reset(n.times.hold())
			}
		}
		var again bool
		var err error
		switch {
		case s.leading:
			again, err = c.here(ctx, s.term)
		case s.leader != "" && s.leader != n.id:
			again, err = c.there(ctx, peerTarget{s.leader, s.addr})
		default:
			again = true
		}
		if !again {
			return err
		}
		if now, _ := n.view.get(); now != s && (now.leading || now.leader != "") {
			continue // to who leads by now
		}
		if !time.Now().Before(deadline) {
			if err != nil {
				return fmt.Errorf("%w (%v)", ErrNoLeader, err)
			}
			return ErrNoLeader
		}
		var pause <-chan time.Time
		if err != nil { // leadership is being handed over, or is lost and the view does not say so yet
			pause = time.After(5*time.Millisecond + rand.N(20*time.Millisecond))
		}
		select {
		case <-changed:
		case <-pause:
		case <-hold.C:
		case <-n.stopping:
			return ErrStopped
		case <-ctx.Done():
		}
	}
}

// errLeaderChanged ends what waits for a leader that leads no more.
var errLeaderChanged = errors.New("another replica leads by now")

// whileLeading gives a ctx that also ends when another replica than this one is known
// to lead: a leader that hangs or is cut off does not answer, and its connections show
// nothing. release must be called.
func (n *Node) whileLeading(ctx context.Context, leader peerTarget) (_ context.Context, release func()) {
	ctx, cancel := context.WithCancelCause(ctx)
	unhook := context.AfterFunc(n.view.spanOf(leader), func() { cancel(errLeaderChanged) })
	return ctx, func() {
		unhook()
		cancel(context.Canceled)
	}
}
