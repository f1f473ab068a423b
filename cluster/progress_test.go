package cluster

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"
	"time"
)

// Every replica's status says how far all are: the leader from what they tell it, the
// others from the leader.
func TestStatus_HowFarAllAre(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := startSim(t, simOptions{seed: 9, delay: time.Millisecond})
		leader := c.mustLead()
		index := c.settle()
		c.wait(3 * time.Second)
		for _, l := range c.up() {
			s := l.Status()
			if len(s.Nodes) != 3 {
				t.Fatalf("%+v", s)
			}
			for _, node := range s.Nodes {
				switch {
				case node.Reachable == nil || !*node.Reachable || node.AppliedIndex == nil || node.LastContactMS == nil:
					t.Errorf("%s of %s: %+v", l.NodeID(), node.NodeID, node)
				case *node.AppliedIndex < index:
					t.Errorf("%s of %s: applied %d, want %d", l.NodeID(), node.NodeID, *node.AppliedIndex, index)
				case *node.LastContactMS > 1200 || l == leader && *node.LastContactMS > 100:
					t.Errorf("%s of %s: last contact %d ms ago", l.NodeID(), node.NodeID, *node.LastContactMS)
				}
			}
		}

		// One that is cut off stays where it was last heard, and the time since grows.
		gone := c.followers()[0]
		at := gone.machine.Applied()
		c.isolate(gone.NodeID())
		c.wait(10 * time.Second)
		for _, l := range c.up() {
			for _, node := range l.Status().Nodes {
				if l == gone || node.NodeID != gone.NodeID() {
					continue
				}
				if node.Reachable == nil || *node.Reachable || node.AppliedIndex == nil || *node.AppliedIndex != at || *node.LastContactMS < 9000 || *node.LastContactMS > 11500 {
					t.Errorf("%s of %s, cut off for 10 s at index %d: %s", l.NodeID(), node.NodeID, at, describeStatus(node))
				}
			}
		}
		for _, node := range gone.Status().Nodes { // nobody tells it anything
			if node.NodeID != gone.NodeID() && (node.Reachable != nil || node.AppliedIndex != nil) {
				t.Errorf("the one that is cut off says of %s: %s", node.NodeID, describeStatus(node))
			}
		}
		c.heal()
		c.settle()

		// A new leader does not go by what the one before it was told.
		old := c.mustLead()
		if err := old.Transfer(context.Background(), ""); err != nil {
			t.Fatal(err)
		}
		c.wait(3 * time.Second)
		for _, l := range c.up() {
			for _, node := range l.Status().Nodes {
				if node.Reachable == nil || !*node.Reachable || node.LastContactMS == nil || *node.LastContactMS > 1200 {
					t.Errorf("after a transfer, %s of %s: %s", l.NodeID(), node.NodeID, describeStatus(node))
				}
			}
		}
	})
}

func describeStatus(s NodeStatus) string {
	text := func(v any) string {
		switch v := v.(type) {
		case *bool:
			if v != nil {
				return fmt.Sprint(*v)
			}
		case *int64:
			if v != nil {
				return fmt.Sprint(*v)
			}
		case *uint64:
			if v != nil {
				return fmt.Sprint(*v)
			}
		}
		return "unknown"
	}
	return fmt.Sprintf("reachable %s, last contact %s ms, applied %s", text(s.Reachable), text(s.LastContactMS), text(s.AppliedIndex))
}
