package fsm

import "github.com/kvctrl/kvctrl/registry"

// This file holds the entries about the replicas: whose term begins, how each is
// reached.

// EncodeTermBegin gives the entry that opens a leader's term.
func EncodeTermBegin(t registry.TermBegin) []byte {
	b := appendHeader(nil, TypeTermBegin)
	b = appendUint(b, t.Term)
	b = appendString(b, t.Node)
	b = appendInt(b, int64(t.At))
	return seal(b)
}

func decodeTermBegin(c *cursor) registry.TermBegin {
	return registry.TermBegin{Term: c.uint(), Node: c.name("node"), At: registry.Micros(c.int())}
}

// EncodeSetMember gives the entry that says how a replica is reached.
func EncodeSetMember(m registry.Member) []byte {
	b := appendHeader(nil, TypeSetMember)
	return seal(appendMember(b, m))
}

func decodeMember(c *cursor) registry.Member {
	return registry.Member{
		NodeID:   c.name("node"),
		PeerAddr: c.name("peer address"),
		URL:      c.name("url"),
		Voter:    c.flags(memberVoter) != 0,
	}
}

const memberVoter = 1

// appendMember writes a member as entries and snapshots have it.
func appendMember(b []byte, m registry.Member) []byte {
	b = appendString(b, m.NodeID)
	b = appendString(b, m.PeerAddr)
	b = appendString(b, m.URL)
	return append(b, bit(m.Voter, memberVoter))
}

// EncodeRemoveMember gives the entry that forgets a replica.
func EncodeRemoveMember(nodeID string) []byte {
	return seal(appendString(appendHeader(nil, TypeRemoveMember), nodeID))
}
