package httpapi

import (
	"regexp"

	"github.com/kvctrl/kvctrl/executor"
	"github.com/kvctrl/kvctrl/fsm"
)

// The bodies of all POST routes, one table each, LMCache's fields first and in its
// order. Fields of ours that LMCache's models do not have are marked so.

const tokensDoc = "Token ids of the prompt."

// bodyLookup: instance_id is a field of ours. LMCache ignores it, and clients of
// LMCache send it: what it holds can restrict an answer, never refuse one.
var bodyLookup = schema{
	{name: "tokens", kind: kindInts, required: true, doc: tokensDoc},
	{name: "instance_id", kind: kindAny, doc: "Only this instance's holding is answered, when it is registered; otherwise ignored, as LMCache does."},
}

const (
	lookupTokens = iota
	lookupInstance
)

var bodyDiagnose = schema{
	{name: "tokens", kind: kindInts, required: true, doc: tokensDoc},
	{name: "instance_id", kind: kindString, nullable: true, doc: "Why this instance does not hold the prompt. Default: all."},
}

const (
	diagnoseTokens = iota
	diagnoseInstance
)

// fieldEventID is a field of ours in every command.
var fieldEventID = field{name: "event_id", kind: kindString, nullable: true, maxChars: executor.MaxEventID,
	doc: "The caller's own id of this command. The same id again returns the first one's outcome and sends nothing."}

var bodyClear = schema{
	{name: "instance_id", kind: kindString, required: true, doc: "The instance to act on."},
	{name: "location", kind: kindString, required: true, maxBytes: fsm.MaxName, doc: locationDoc},
	fieldEventID,
}

const locationDoc = "A backend of the instance; local_cpu, local_disk, remote and p2p stand for LocalCPUBackend, LocalDiskBackend, RemoteBackend and P2PBackend."

const (
	clearInstance = iota
	clearLocation
	clearEvent
)

var bodyPin = schema{
	{name: "instance_id", kind: kindString, required: true, doc: "The instance to act on."},
	{name: "location", kind: kindString, required: true, maxBytes: fsm.MaxName, doc: locationDoc},
	{name: "tokens", kind: kindInts, required: true, doc: tokensDoc},
	fieldEventID,
}

const (
	pinInstance = iota
	pinLocation
	pinTokens
	pinEvent
)

var bodyCompress = schema{
	{name: "instance_id", kind: kindString, required: true, doc: "The instance to act on."},
	{name: "method", kind: kindString, required: true, doc: "Compression method; LMCache knows cachegen."},
	{name: "location", kind: kindString, required: true, maxBytes: fsm.MaxName, doc: locationDoc},
	{name: "tokens", kind: kindInts, nullable: true, doc: tokensDoc + " Default: none."},
	fieldEventID,
}

const (
	compressInstance = iota
	compressMethod
	compressLocation
	compressTokens
	compressEvent
)

// bodyMove: copy is what releases up to 0.3.10 called should_copy. 0.5.6 ignores it,
// which turns an old client's copy into a move that deletes the source.
var bodyMove = schema{
	{name: "old_position", kind: kindPair, required: true, maxBytes: fsm.MaxName, doc: "Source: instance and location."},
	{name: "new_position", kind: kindPair, required: true, maxBytes: fsm.MaxName, doc: "Destination: instance and location."},
	{name: "tokens", kind: kindInts, nullable: true, doc: tokensDoc + " Default: none."},
	{name: "should_copy", kind: kindBool, nullable: true, doc: "Leave the source's chunks where they are. Default: false."},
	{name: "copy", kind: kindBool, nullable: true, doc: "Older name of should_copy, which counts when both are given."},
	fieldEventID,
}

const (
	moveOld = iota
	moveNew
	moveTokens
	moveShouldCopy
	moveCopy
	moveEvent
)

var bodyHealth = schema{
	{name: "instance_id", kind: kindString, required: true, doc: "The instance whose workers are asked."},
}

var bodyCheckFinish = schema{
	{name: "event_id", kind: kindString, required: true, doc: "The command's id."},
}

var bodyQueryInstance = schema{
	{name: "event_id", kind: kindString, required: true, doc: "Required and not used."},
	{name: "ip", kind: kindString, required: true, doc: "A worker's address as it registered it."},
}

const queryInstanceIP = 1

var bodyQueryWorkerInfo = schema{
	{name: "instance_id", kind: kindString, required: true, doc: "An instance, or all."},
	{name: "worker_ids", kind: kindInts, nullable: true, doc: "Ranks, answered in this order. Default: every rank."},
}

const (
	workerInfoInstance = iota
	workerInfoIDs
)

// Names of replicas, as the cluster takes them (cluster.Options).
var nodeIDPattern = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$`)

var bodyJoin = schema{
	{name: "node_id", kind: kindString, required: true, pattern: nodeIDPattern, doc: "The replica's node id."},
	{name: "peer_addr", kind: kindString, required: true, maxBytes: fsm.MaxName, pattern: regexp.MustCompile(`^[^\s/]+:[0-9]{1,5}$`), doc: "Where other replicas dial it: host:port."},
	{name: "url", kind: kindString, nullable: true, maxBytes: fsm.MaxName, pattern: regexp.MustCompile(`^https?://[^\s/]+(/\S*)?$`), doc: "Where clients reach its REST. Default: what the replica says."},
	{name: "voter", kind: kindBool, nullable: true, doc: "Whether it votes, once it has caught up. Default: true."},
}

const (
	joinNode = iota
	joinPeerAddr
	joinURL
	joinVoter
)

var bodyLeave = schema{
	{name: "node_id", kind: kindString, required: true, maxChars: 64, doc: "The replica's node id."},
	{name: "force", kind: kindBool, nullable: true, doc: "Also when the cluster then cannot commit. Default: false."},
}

const (
	leaveNode = iota
	leaveForce
)

// bodyTransfer: every field may be left out, and so may the body.
var bodyTransfer = schema{
	{name: "node_id", kind: kindString, nullable: true, maxChars: 64, doc: "Who is to lead. Default: the voter that is furthest."},
}
