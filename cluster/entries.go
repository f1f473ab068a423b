package cluster

import (
	"time"

	"github.com/kvctrl/kvctrl/fsm"
	"github.com/kvctrl/kvctrl/registry"
)

// entries makes the entries that the node itself proposes.
type entries struct{ node string }

func now() registry.Micros { return registry.Micros(time.Now().UnixMicro()) }

// termBegin is the first entry of a term this node leads.
func (e entries) termBegin(term uint64) []byte {
	return fsm.EncodeTermBegin(registry.TermBegin{Term: term, Node: e.node, At: now()})
}

// noop changes nothing: a term that has begun begins once.
func (e entries) noop(term uint64) []byte { return e.termBegin(term) }

func (e entries) removeMember(nodeID string) []byte { return fsm.EncodeRemoveMember(nodeID) }

func (e entries) setMember(m registry.Member) []byte { return fsm.EncodeSetMember(m) }
