package cluster

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
)

// sighting is what a replica says of itself when another looks at it.
type sighting struct {
	Identity
	// Run names this run of the process: two addresses with one run are one replica.
	Run string `json:"run"`
	// Expect is how many replicas it wants to form a cluster with, 0 = it forms none.
	Expect int `json:"expect"`
	// WasMember says that it has been a member of its cluster for certain.
	WasMember bool `json:"was_member"`
	// Sees names the empty replicas that it saw last.
	Sees []string `json:"sees"`
}

// lookPath answers a sighting of who is asked.
const lookPath = "/cluster/found/look"

func (n *Node) answerLook(context.Context, Identity, []byte) ([]byte, error) {
	return json.Marshal(n.sighting())
}

func (n *Node) sighting() sighting {
	s := sighting{Identity: n.Identity(), Run: n.runID, WasMember: n.wasMember()}
	if len(n.opts.Join) > 0 {
		s.Expect = n.opts.BootstrapExpect
	}
	f := &n.formation
	f.mu.Lock()
	defer f.mu.Unlock()
	for id := range f.seen {
		s.Sees = append(s.Sees, id)
	}
	slices.Sort(s.Sees)
	return s
}

// look asks who is there.
func (n *Node) look(ctx context.Context, at peerTarget) (sighting, error) {
	ctx, cancel := context.WithTimeout(ctx, lookTimeout)
	defer cancel()
	var s sighting
	return s, n.ask(ctx, at, lookPath, nil, &s)
}

// survey is what one look around shows.
type survey struct {
	empty   []sighting // replicas in no cluster, by node id
	members []Identity // replicas in one
	missing []missing
}

type missing struct {
	url string
	err error
}

// survey asks every address of --join at once. This node itself is in neither list.
func (n *Node) survey(ctx context.Context) survey {
	found := make([]survey, len(n.opts.Join))
	var wg sync.WaitGroup
	for i, url := range n.opts.Join {
		wg.Add(1)
		// Owner: this call; ends within twice lookTimeout.
		go func() {
			defer wg.Done()
			if err := n.lookAt(ctx, url, &found[i]); err != nil {
				found[i].missing = []missing{{url, err}}
			}
		}()
	}
	wg.Wait()
	var all survey
	for _, s := range found {
		all.missing = append(all.missing, s.missing...)
		for _, e := range s.empty { // two addresses may lead to one replica
			if !slices.ContainsFunc(all.empty, func(o sighting) bool { return o.NodeID == e.NodeID }) {
				all.empty = append(all.empty, e)
			}
		}
		for _, m := range s.members {
			if !slices.ContainsFunc(all.members, func(o Identity) bool { return o.NodeID == m.NodeID }) {
				all.members = append(all.members, m)
			}
		}
	}
	slices.SortFunc(all.empty, func(a, b sighting) int { return cmp.Compare(a.NodeID, b.NodeID) })
	return all
}

// lookAt asks one address who it is, first by REST, then by the peer port.
func (n *Node) lookAt(ctx context.Context, url string, s *survey) error {
	who, err := n.discover(ctx, url)
	switch {
	case err != nil:
		return err
	case who.NodeID == n.id && who.PeerAddr == n.PeerAddr():
		return nil
	case who.NodeID == n.id:
		return fmt.Errorf("it is node %q as well, at peer address %s: give one of the two another --node-id", n.id, who.PeerAddr)
	case who.NodeID == "" || who.PeerAddr == "":
		return errors.New("it does not say its node id and peer address: is it a kvctrld of this release?")
	case who.ClusterID != "":
		s.members = []Identity{who}
		return nil
	}
	there, err := n.look(ctx, peerTarget{who.NodeID, who.PeerAddr})
	if err != nil {
		return fmt.Errorf("node %q does not answer on its peer port %s: %w", who.NodeID, who.PeerAddr, err)
	}
	if there.ClusterID != "" {
		s.members = []Identity{there.Identity}
	} else {
		s.empty = []sighting{there}
	}
	return nil
}

func (n *Node) discover(ctx context.Context, url string) (Identity, error) {
	ctx, cancel := context.WithTimeout(ctx, lookTimeout)
	defer cancel()
	return n.opts.Discover(ctx, url)
}

// noteSurvey keeps what others may ask.
func (n *Node) noteSurvey(s survey) {
	f := &n.formation
	f.mu.Lock()
	defer f.mu.Unlock()
	f.cluster = s.clusterID()
	f.seen = map[string]sighting{}
	for _, e := range s.empty {
		f.seen[e.NodeID] = e
	}
}

// severalClusters stands for a cluster id where there is more than one.
const severalClusters = "*"

// clusterID is the cluster that was seen, "" for none.
func (s survey) clusterID() string {
	id := ""
	for _, m := range s.members {
		switch {
		case id == "":
			id = m.ClusterID
		case id != m.ClusterID:
			return severalClusters
		}
	}
	return id
}

func (s survey) clusters() string {
	var out []string
	for _, m := range s.members {
		out = append(out, fmt.Sprintf("node %q at %s is in %q", m.NodeID, m.URL, m.ClusterID))
	}
	return strings.Join(out, ", ")
}

// ready returns an error while the nodes of set do not all want the same, or do not
// all see each other.
func (s survey) ready(set []Identity, self string, expect int) error {
	var errs []error
	for _, e := range s.empty {
		if !slices.ContainsFunc(set, func(m Identity) bool { return m.NodeID == e.NodeID }) {
			continue
		}
		if e.Expect != expect {
			errs = append(errs, fmt.Errorf("node %q at %s was started with --bootstrap-expect=%d, this one with %d", e.NodeID, e.URL, e.Expect, expect))
		}
		for _, m := range set {
			if m.NodeID != e.NodeID && !slices.Contains(e.Sees, m.NodeID) {
				errs = append(errs, fmt.Errorf("node %q at %s does not see node %q yet", e.NodeID, e.URL, m.NodeID))
			}
		}
	}
	return errors.Join(errs...)
}

// words names who is seen and who is missing.
func (s survey) words(seen []Identity) string {
	var out []string
	for _, m := range seen {
		out = append(out, fmt.Sprintf("%q at %s", m.NodeID, m.URL))
	}
	return fmt.Sprintf("seen: %s; %s", strings.Join(out, ", "), s.missingWords())
}

func (s survey) missingWords() string {
	if len(s.missing) == 0 {
		return "nobody is missing"
	}
	var out []string
	for _, m := range s.missing {
		// Who was asked by REST says itself what was asked.
		out = append(out, fmt.Sprintf("%s (%s)", m.url, strings.TrimPrefix(m.err.Error(), m.url+": ")))
	}
	return "missing: " + strings.Join(out, ", ")
}
