package lmcache

// Plane is who talks to whom with a message.
type Plane uint8

const (
	PlaneUnknown Plane = iota // not a message of this package
	// PlaneWorker: worker to controller, on PULL, the reply or the heartbeat socket.
	PlaneWorker
	// PlaneAnswer: controller to worker, on the reply or the heartbeat socket.
	PlaneAnswer
	// PlaneCommand: controller to worker, on the worker's own port.
	PlaneCommand
	// PlaneCommandAnswer: worker to controller, in answer to a command.
	PlaneCommandAnswer
	// PlaneOrchestrator: orchestrator to controller and back.
	PlaneOrchestrator
	// PlaneError: ErrorMsg, an answer on all planes.
	PlaneError
)

// messageTypes lists every message there is: 51 in 0.5.6, of which earlier releases
// have subsets. The fields of each are in the message_fields file of its plane.
var messageTypes = []messageType{
	// PlaneWorker
	messageOf(PlaneWorker, registerFields),
	messageOf(PlaneWorker, heartbeatFields),
	messageOf(PlaneWorker, deRegisterFields),
	messageOf(PlaneWorker, batchedKVOperationFields),
	messageOf(PlaneWorker, kvAdmitFields),
	messageOf(PlaneWorker, kvEvictFields),
	messageOf(PlaneWorker, batchedP2PLookupFields),
	messageOf(PlaneWorker, fullSyncStartFields),
	messageOf(PlaneWorker, fullSyncBatchFields),
	messageOf(PlaneWorker, fullSyncEndFields),
	messageOf(PlaneWorker, fullSyncStatusFields),

	messageOf(PlaneAnswer, registerRetFields),
	messageOf(PlaneAnswer, heartbeatRetFields),
	messageOf(PlaneAnswer, batchedP2PLookupRetFields),
	messageOf(PlaneAnswer, fullSyncStartRetFields),
	messageOf(PlaneAnswer, fullSyncStatusRetFields),

	messageOf(PlaneCommand, clearWorkerFields),
	messageOf(PlaneCommand, pinWorkerFields),
	messageOf(PlaneCommand, compressWorkerFields),
	messageOf(PlaneCommand, decompressWorkerFields),
	messageOf(PlaneCommand, moveWorkerFields),
	messageOf(PlaneCommand, healthWorkerFields),
	messageOf(PlaneCommand, checkFinishWorkerFields),

	messageOf(PlaneCommandAnswer, clearWorkerRetFields),
	messageOf(PlaneCommandAnswer, pinWorkerRetFields),
	messageOf(PlaneCommandAnswer, compressWorkerRetFields),
	messageOf(PlaneCommandAnswer, decompressWorkerRetFields),
	messageOf(PlaneCommandAnswer, moveWorkerRetFields),
	messageOf(PlaneCommandAnswer, healthWorkerRetFields),
	messageOf(PlaneCommandAnswer, checkFinishWorkerRetFields),

	messageOf(PlaneOrchestrator, lookupFields),
	messageOf(PlaneOrchestrator, queryInstFields),
	messageOf(PlaneOrchestrator, queryWorkerInfoFields),
	messageOf(PlaneOrchestrator, clearFields),
	messageOf(PlaneOrchestrator, pinFields),
	messageOf(PlaneOrchestrator, compressFields),
	messageOf(PlaneOrchestrator, decompressFields),
	messageOf(PlaneOrchestrator, moveFields),
	messageOf(PlaneOrchestrator, healthFields),
	messageOf(PlaneOrchestrator, checkFinishFields),

	messageOf(PlaneOrchestrator, lookupRetFields),
	messageOf(PlaneOrchestrator, queryInstRetFields),
	messageOf(PlaneOrchestrator, queryWorkerInfoRetFields),
	messageOf(PlaneOrchestrator, clearRetFields),
	messageOf(PlaneOrchestrator, pinRetFields),
	messageOf(PlaneOrchestrator, compressRetFields),
	messageOf(PlaneOrchestrator, decompressRetFields),
	messageOf(PlaneOrchestrator, moveRetFields),
	messageOf(PlaneOrchestrator, healthRetFields),
	messageOf(PlaneOrchestrator, checkFinishRetFields),

	messageOf(PlaneError, errorFields),
}

// messageType is what Decode and Append know of a message.
type messageType struct {
	name   string
	plane  Plane
	decode func(r *reader, n int) Message // n fields follow, the type among them
	append func(dst []byte, m Message, o Options) []byte
}

// messageOf makes the entry of the message *T.
func messageOf[T any, P interface {
	*T
	Message
}](plane Plane, fields []field[T]) messageType {
	name := P(nil).Type()
	return messageType{
		name:  name,
		plane: plane,
		decode: func(r *reader, n int) Message {
			m := P(new(T))
			readFields(r, n, (*T)(m), fields, name)
			return m
		},
		append: func(dst []byte, m Message, o Options) []byte {
			return appendFields(dst, name, (*T)(m.(P)), fields, o)
		},
	}
}

// typeByName is messageTypes by name.
var typeByName = func() map[string]*messageType {
	byName := make(map[string]*messageType, len(messageTypes))
	for i := range messageTypes {
		byName[messageTypes[i].name] = &messageTypes[i]
	}
	return byName
}()

// PlaneOf returns the plane of a message.
func PlaneOf(m Message) Plane {
	if m == nil {
		return PlaneUnknown
	}
	if mt, ok := typeByName[m.Type()]; ok {
		return mt.plane
	}
	return PlaneUnknown
}

// IsOrchestrator says whether m is a request or answer of the orchestrator's plane.
// LMCache executes such requests when they arrive on a worker socket, so that whoever
// reaches the port can clear caches; a receiver of worker messages must refuse them.
func IsOrchestrator(m Message) bool { return PlaneOf(m) == PlaneOrchestrator }
