package e2e

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"sync"
	"time"
)

// none: no command reached a worker.
var none = []string{}

func unknownInstance(id string) expectation {
	return expectation{status: 404, code: "unknown_instance", detail: []string{fmt.Sprintf("%q", id)}, received: none}
}

func gauge(pairs ...any) expectation {
	m := map[string]float64{}
	for i := 0; i < len(pairs); i += 2 {
		m[pairs[i].(string)] = pairs[i+1].(float64)
	}
	return expectation{metrics: m}
}

func worker(instance, ip string, port int, peer, keys string) string {
	if peer != "null" {
		peer = `"` + peer + `"`
	}
	w := fmt.Sprintf(`{"instance_id":%q,"worker_id":0,"ip":%q,"port":%d,"peer_init_url":%s,"registration_time":"<time>","last_heartbeat_time":"<time>"`,
		instance, ip, port, peer)
	if keys != "" {
		w += `,"key_count":` + keys
	}
	return w + "}"
}

func instA(keys string) string {
	return worker("inst-a", "127.0.0.1", 21400, "127.0.0.1:21900", keys)
}
func instB(keys string) string { return worker("inst-b", "127.0.0.1", 21402, "null", keys) }

const (
	asRecorded  = "the answer itself is right; the defect is in what came before or after it"
	commandVerb = `(clear|pin|compress|decompress)`
)

// better is what kvctrl answers where the Python controller is wrong, blind or stuck,
// by rule. Every defect of the recording has exactly one entry.
var better = []entry{
	// Errors with a cause.
	{[]string{`^empty: /(clear|pin|compress|decompress|move) (nobody registered|extra field)$`,
		`^empty: /(compress|decompress|move) (without tokens|tokens null|without should_copy|should_copy null)$`},
		"an unknown instance is 404 and named", unknownInstance("nobody")},
	{[]string{"empty: /move old flag name"}, "an unknown instance is 404 and named", unknownInstance("a")},
	{[]string{`^fleet: ` + commandVerb + ` nobody$`, "fleet: move unknown source", "fleet: move unknown destination", "fleet: move both unknown"},
		"an unknown instance is 404 and named; nothing is sent to the known side", unknownInstance("nobody")},
	{[]string{`^fleet: ` + commandVerb + ` $`}, "the empty name is an unknown instance", unknownInstance("")},
	{[]string{"registry: command to it after that"}, "an instance that has gone is 404", unknownInstance("inst-a")},
	{[]string{"empty: /query_instance nobody registered", "empty: /query_instance extra field", "fleet: query_instance unknown"},
		"an unknown address is 404 and named", expectation{status: 404, code: "unknown_address", detail: []string{"10.9.9.9"}}},
	{[]string{"fleet: query_instance with port"}, "an address with a port is none", expectation{status: 404, code: "unknown_address", detail: []string{"127.0.0.1:21400"}}},
	{[]string{"fleet: query_instance empty"}, "the empty address is unknown", expectation{status: 404, code: "unknown_address"}},
	{[]string{"empty: /check_finish nobody registered", "empty: /check_finish extra field", "fleet: check_finish of a real event"},
		"check_finish answers; these events are none of this controller's", expectation{status: 200, body: `{"status":"unknown"}`}},
	{[]string{`^fleet: ` + commandVerb + ` err-d$`, "fleet: move from err-d"},
		"a worker's error is 502 with its own words", expectation{status: 502, code: "worker_error", detail: []string{"err-d", "no such location"}, workers: 1}},
	{[]string{`^fleet: ` + commandVerb + ` err1-f$`, "fleet: move from err1-f"},
		"one rank did it, one did not: 502 partial with both outcomes", expectation{status: 502, code: "partial", detail: []string{"err1-f", "no such location"}, workers: 2}},
	{[]string{`^fleet: ` + commandVerb + ` uneven-e$`, "fleet: move from uneven-e"},
		"ranks that disagree are 502 with both counts", expectation{status: 502, code: "disagree", detail: []string{"uneven-e", "512", "256"}, workers: 2}},
	{[]string{`^fleet: ` + commandVerb + ` (junk-g|nil-j|floattokens-m)$`, "fleet: move from junk-g", "fleet: move from nil-j"},
		"an answer that is no message is 502", expectation{status: 502, code: "bad_answer", workers: 1}},
	{[]string{`^fleet: (clear|compress|decompress) othertype-h$`, `^fleet: ` + commandVerb + ` othertype-i$`, "fleet: move from othertype-h", "fleet: move from othertype-i"},
		"an answer of another type is 502, with or without num_tokens", expectation{status: 502, code: "bad_answer", detail: []string{"WorkerRetMsg"}, workers: 1}},
	{[]string{"fleet: pin othertype-h"}, "recorded as a defect with its group; the type is pin's own and the answer good",
		expectation{status: 200, body: `{"event_id":"Pin<uuid>","num_tokens":5}`}},
	{[]string{`^fleet: ` + commandVerb + ` negtokens-l$`}, "a negative count is no answer", expectation{status: 502, code: "bad_answer", detail: []string{"-7"}, workers: 1}},
	{[]string{"fleet: pin 2^64", "fleet: pin below -2^63", `^fleet: (compress|decompress|move) tokens 2\^64$`},
		"a token beyond 64 bits is the client's fault", expectation{status: 400, received: none}},
	{[]string{"empty: /lookup body: NaN", "empty: /lookup body: Infinity"}, "not JSON: 422", expectation{status: 422, list: true}},
	{[]string{"empty: /lookup body: lone surrogate"}, "no Unicode, like invalid UTF-8: 400", expectation{status: 400, code: "bad_body", detail: []string{"surrogate"}}},

	// Moves.
	{[]string{"fleet: move TP=1 to TP=2", "fleet: move TP=2 to TP=1"}, "ranks that do not match are refused before anything is sent",
		expectation{status: 409, code: "ranks", detail: []string{"tp1-a", "tp2-b"}, received: none}},
	{[]string{"fleet: move destination without P2P"}, "refused as things stand, and says why", expectation{status: 409, code: "no_p2p", detail: []string{"nop2p-c", "peer_init_url"}, received: none}},
	{[]string{"fleet: move old flag name copy"}, "copy is taken for should_copy", expectation{do: copyStaysACopy}},

	// Lookups.
	{[]string{"fleet: lookup ranks disagree"}, "an instance holds what all its ranks hold",
		expectation{status: 200, body: `{"event_id":"Lookup<uuid>","layout_info":{"tp2-b":["LocalDiskBackend",256]}}`}},
	{[]string{"fleet: lookup chunks at two instances in turn"}, "neither instance holds the prefix",
		expectation{status: 200, body: `{"event_id":"Lookup<uuid>","layout_info":{}}`}},
	{[]string{"p2p: p2p hit"}, "the longest prefix wins", expectation{reply: p2pHit("later", 3, 21905)}},
	{[]string{"p2p: p2p hit as rank 1"}, "of equal runs, the asker's own rank", expectation{reply: p2pHit("holder2", 3, 21903)}},
	{[]string{"p2p: p2p holder without address first"}, "a holder without an address hides nobody", expectation{reply: p2pHit("later", 2, 21905)}},

	// Registration and lists.
	{[]string{"registry: disk without numbers"}, "a stream whose first two numbers are 0 has none: not judged (the gauge of the next row)", expectation{taken: true}},
	{[]string{"registry: metrics: gaps"}, "three gaps: the unnumbered stream is none; nobody is in a sync",
		gauge("kv_op_seq_discontinuity_count", 3.0, "full_sync_global_progress", 1.0)},
	{[]string{"registry: metrics: no further gap"}, "still three; a new process numbers from 0: what came first is missing, so the worker owes a sync, and is in none",
		gauge("kv_op_seq_discontinuity_count", 3.0, "full_sync_global_progress", 1.0)},
	{[]string{"registry: workers of inst-a: the old address"}, "registering again updates the address",
		expectation{status: 200, body: `{"workers":[` + worker("inst-a", "localhost", 21401, "127.0.0.1:21999", "0") + `],"total_count":1}`}},
	{[]string{"registry: command goes to the old address"}, "commands go to the new address",
		expectation{status: 200, body: `{"event_id":"Clear<uuid>","num_tokens":2}`}},
	{[]string{"registry: last_heartbeat_time after heartbeats"}, "both lists show the heartbeat", expectation{do: heartbeatTimes}},
	{[]string{"registry: workers: cached"}, "lists are current",
		expectation{status: 200, body: `{"workers":[` + instA("2") + `,` + instB("0") + `],"total_count":2}`}},
	{[]string{"registry: query_worker_info all: cached"}, "lists are current",
		expectation{status: 200, body: `{"event_id":"QueryWorkerInfo<uuid>","worker_infos":[` + instA("") + `,` + instB("") + `]}`}},
	{[]string{"registry: metrics: registered_workers_count from the same cache"}, "gauges are current; both workers owe a sync, the second because it came by heartbeat, and nobody is in one",
		gauge("registered_workers_count", 2.0, "kv_op_seq_discontinuity_count", 3.0, "full_sync_global_progress", 1.0)},
	{[]string{"registry: workers: a worker that has gone, from the cache"}, "who has gone is not listed",
		expectation{status: 200, body: `{"workers":[` + instB("0") + `],"total_count":1}`}},
	{[]string{"registry: KVAdmitMsg", "registry: KVAdmitMsg as JSON"}, "events of older workers count (key stats: inst-b only)", expectation{taken: true}},
	{[]string{"registry: RegisterMsg on PUSH"}, "older workers register on PULL (key stats: inst-b only)", expectation{taken: true}},
	{[]string{"registry: ClearMsg on PUSH", "stuck: ClearMsg on PUSH for a worker that takes 2.5 s"}, "a command on PULL is read and not carried out", expectation{do: notCarriedOut}},
	{[]string{"registry: worker received because of the ClearMsg on PUSH"}, "nothing", expectation{do: pushedClearNowhere}},

	// Full sync: the old keys are seen until all is in.
	{[]string{"full_sync: key stats: CPU keys gone"}, "the keys stay until the sync is complete", expectation{status: 200, body: syncStats(5)}},
	{[]string{"full_sync: start with another sync id", "full_sync: start of the restarted worker"}, "a worker that starts anew has given up the sync before",
		expectation{do: syncAccepted}},
	{[]string{"full_sync: event during the sync"}, "events count during a sync (key stats after the end)", expectation{taken: true}},
	{[]string{"full_sync: end with missing batches", "full_sync: batch 0 after the end"}, "the end waits for what is missing (the status after it)", expectation{taken: true}},
	{[]string{"full_sync: status after the end"}, "two batches never came: not complete, and they are named; of the workers that sync none is done",
		expectation{reply: `{"type":"FullSyncStatusRetMsg","sync_id":"inst-a_0_00000001","is_complete":false,"global_progress":0.0,"can_exit_freeze":false,"missing_batches":[0,2]}`}},
	{[]string{"full_sync: key stats after the end"}, "batch 2 is missing: the keys from before and the events since (1 2 3 60; disk 50 51 61)", expectation{status: 200, body: syncStats(7)}},
	{[]string{"full_sync: event on disk after the end"}, "taken; number 3 was never sent: a gap (the gauge)", expectation{taken: true}},
	{[]string{"full_sync: heartbeat inst-b which never synced"}, "nothing was lost there: no sync is asked for", expectation{like: true}},
	{[]string{"full_sync: metrics after the sync"}, "the sync still waits for batch 2",
		gauge("kv_pool_keys_count", 9.0, "full_sync_workers_syncing", 1.0, "full_sync_workers_completed", 0.0,
			"full_sync_global_progress", 0.0, "full_sync_missing_batches_total", 1.0)},
	{[]string{"full_sync: register during a sync", "full_sync: event after registering again"}, "registering ends the sync; the event counts (key stats of the locked-out worker)", expectation{do: taken}},
	{[]string{"full_sync: heartbeat of the restarted worker"}, "it syncs: no command", expectation{like: true}},
	{[]string{"full_sync: key stats of the locked-out worker"}, "not locked out: its event after registering is in", expectation{status: 200, body: syncStats(1)}},
	{[]string{"sync_flag: status before anybody registered", "sync_flag: register inst-a", "sync_flag: register inst-b", "sync_flag: start",
		"sync_flag_status_only: register", "sync_flag_status_only: heartbeat after it", "sync_flag: heartbeat of inst-b"}, asRecorded, expectation{like: true}},
	{[]string{"sync_flag: batch and end"}, asRecorded, expectation{taken: true}},
	{[]string{"sync_flag: status after the end", "sync_flag: status 31 s later"}, "complete: the worker may go on at once",
		expectation{reply: `{"type":"FullSyncStatusRetMsg","sync_id":"x","is_complete":true,"global_progress":1.0,"can_exit_freeze":true,"missing_batches":[]}`}},
	{[]string{"sync_flag: metrics"}, "current", gauge("full_sync_workers_completed", 1.0, "full_sync_global_progress", 1.0)},
	{[]string{"sync_flag_status_only: status of a sync that never was"}, "who never synced this is not told to go on",
		expectation{reply: `{"type":"FullSyncStatusRetMsg","sync_id":"none","is_complete":false,"global_progress":1.0,"can_exit_freeze":false,"missing_batches":[]}`}},

	// Bad frames end nothing.
	{[]string{`^bad_pull_\w+: register inst-a/0$`}, asRecorded, expectation{like: true}},
	{[]string{`^bad_pull_\w+: events 0$`}, asRecorded, expectation{taken: true}},
	{[]string{`^bad_pull_\w+: bad frame: \w+$`}, "read and counted (PULL after, metrics after)", expectation{taken: true}},
	{[]string{`^bad_pull_\w+: PULL (after|from a new connection)$`, "old_worker: PULL after", "stuck: PULL meanwhile"}, "events go on", expectation{do: eventTaken}},
	{[]string{`^bad_pull_\w+: metrics (after|at the end)$`}, "the socket goes on: all is counted and nothing waits", gauge("pull_socket_has_pending", 0.0)},
	{[]string{"bad_router: bad frame: invalid UTF-8 in a string", "bad_heartbeat: bad frame: invalid UTF-8 in a string"}, "answered with ErrorMsg",
		expectation{reply: `{"type":"ErrorMsg","error":"<text>"}`}},
	{[]string{"bad_router: metrics", "bad_heartbeat: metrics"}, "the socket goes on: all is counted and nothing waits",
		gauge("reply_socket_has_pending", 0.0)},
	{[]string{"old_worker: RegisterMsg of 0.3.9.post2"}, "registers the worker", expectation{do: oldWorkerIsThere}},

	// Silence.
	{[]string{"reaping: register quiet", "reaping: register beating"}, asRecorded, expectation{like: true}},
	{[]string{"reaping: keys"}, asRecorded, expectation{taken: true}},
	{[]string{"reaping: key stats after 6 s", "reaping: key stats then"}, "a worker that sends events lives",
		expectation{status: 200, body: `{"total_key_count":3,"total_instance_count":2,"total_worker_count":2,"instances":[` +
			`{"instance_id":"quiet","key_count":2,"worker_count":1},{"instance_id":"beating","key_count":1,"worker_count":1}]}`}},
	{[]string{"reaping: workers of quiet"}, "a worker that sends events lives",
		expectation{status: 200, body: `{"workers":[` + worker("quiet", "127.0.0.1", 21400, "127.0.0.1:21900", "2") + `],"total_count":1}`}},
	{[]string{"reaping: heartbeat of the reaped one"}, "it was not reaped: nothing to sync", expectation{reply: `{"type":"HeartbeatRetMsg","commands":[]}`}},

	{[]string{"stuck: silent: no answer", "stuck: silent: second command"}, "504 at the deadline, every time",
		expectation{status: 504, code: "timeout", detail: []string{"silent-a", "1.5s"}, workers: 1, received: []string{"silent-a/0 ClearWorkerMsg"}}},
	{[]string{"stuck: silent: health"}, "504 with what is known of every rank",
		expectation{status: 504, code: "timeout", body: `{"detail":"<text>","code":"timeout","error_codes":{"0":-1004}}`, detail: []string{"silent-a"},
			received: []string{"silent-a/0 HealthWorkerMsg"}}},
	{[]string{"stuck: silent: pin"}, "504 at the deadline, every time",
		expectation{status: 504, code: "timeout", detail: []string{"silent-a", "1.5s"}, workers: 1, received: []string{"silent-a/0 PinWorkerMsg"}}},
	{[]string{"stuck: silent: decompress"}, "504 at the deadline, every time",
		expectation{status: 504, code: "timeout", detail: []string{"silent-a", "1.5s"}, workers: 1, received: []string{"silent-a/0 DecompressWorkerMsg"}}},
	{[]string{"stuck: half: one rank silent", "stuck: half: again"}, "one rank did it, the other is silent: partial, with both outcomes",
		expectation{status: 502, code: "partial", detail: []string{"half-b", "1.5s"}, workers: 2, received: []string{"half-b/0 ClearWorkerMsg", "half-b/1 ClearWorkerMsg"}}},
	{[]string{"stuck: silent: worker restarted at the same address", "stuck: silent: after registering again"}, "a worker that is back gets its commands",
		expectation{status: 200, body: `{"event_id":"Clear<uuid>","num_tokens":9}`, received: []string{"silent-a/0 ClearWorkerMsg"}}},
	{[]string{"stuck: late: client gives up"}, "the client's patience is its own affair; the worker has the command", expectation{do: clientGivesUp}},
	{[]string{"stuck: late: second command meanwhile"}, "the second command waits for the first",
		expectation{status: 200, body: `{"event_id":"Clear<uuid>","num_tokens":5}`, received: []string{"late-c/0 ClearWorkerMsg"}}},
	{[]string{"stuck: late: two /clear at the same time"}, "both get their answer", expectation{do: twoAtATime}},
	{[]string{"stuck: absent: nobody listens"}, "504, unreachable, nothing sent",
		expectation{status: 504, code: "unreachable", detail: []string{"absent-d"}, workers: 1}},
	{[]string{"stuck: absent: what the worker receives when it appears later"}, "nothing of what was given up", expectation{do: appearsLater}},
	{[]string{"stuck: absent: health"}, "504, unreachable",
		expectation{status: 504, body: `{"detail":"<text>","code":"unreachable","error_codes":{"0":-1005}}`, detail: []string{"absent-g"}}},
	{[]string{"stuck: silent: the request that was waiting"}, "504 that names the worker", expectation{do: waitingRequestEnds}},
	{[]string{"stuck: PULL after the answer"}, "as recorded, without having waited", expectation{like: true}},
}

func p2pHit(instance string, chunks, peer int) string {
	return fmt.Sprintf(`{"type":"BatchedP2PLookupRetMsg","layout_info":[[%q,"LocalCPUBackend",%d,"127.0.0.1:%d"]]}`, instance, chunks, peer)
}

// syncStats is key-stats in scenario full_sync with so many keys at inst-a.
func syncStats(keys int) string {
	return fmt.Sprintf(`{"total_key_count":%d,"total_instance_count":2,"total_worker_count":2,"instances":[`+
		`{"instance_id":"inst-a","key_count":%d,"worker_count":1},{"instance_id":"inst-b","key_count":0,"worker_count":1}]}`, keys, keys)
}

// taken carries the row out; later rows show the effect.
func taken(r *replay, row *row) []string {
	if *row.zmq.Socket == "PUSH/PULL" {
		return r.runPush(row)
	}
	return r.runDealer(row, &expectation{like: true})
}

func eventTaken(r *replay, row *row) []string { return r.observe(row) }

func syncAccepted(r *replay, row *row) []string {
	id := mustJSON(string(row.zmq.Request)).(object).text("sync_id")
	return r.runDealer(row, &expectation{reply: `{"type":"FullSyncStartRetMsg","sync_id":"` + id + `","accepted":true,"error_msg":null}`})
}

// copyStaysACopy: everything as recorded, but the worker is told to copy.
func copyStaysACopy(r *replay, row *row) []string { return moveWithCopy(r, row, true) }

func moveWithCopy(r *replay, row *row, want bool) []string {
	marks := r.marks()
	a, err := r.rest(context.Background(), row)
	if err != nil {
		return []string{err.Error()}
	}
	faults := sameAnswer(row.rest, row.rest.recorded(r.t), a, false)
	got := r.received(marks)
	if b := brief(got); !slices.Equal(b, []string{"tp1-a/0 MoveWorkerMsg"}) {
		return append(faults, fmt.Sprintf("want one MoveWorkerMsg at tp1-a, got %q", b))
	}
	sent, err := parseJSON(row.rest.WorkersReceived)
	if err != nil {
		return []string{err.Error()}
	}
	recorded, _ := sent.([]any)[0].(object).get("message")
	message := recorded.(object)
	for i := range message {
		if message[i].key == "copy" {
			message[i].value = want
		}
	}
	return append(faults, differences(message, got[0].message, false)...)
}

// heartbeatTimes: the time of the last heartbeat is later than the registration, asked
// for the worker and in the list of all.
func heartbeatTimes(r *replay, _ *row) []string {
	var faults []string
	for _, path := range []string{"/controller/workers?instance_id=inst-a&worker_id=0", "/controller/workers"} {
		err := Poll(settleLimit, func() error { return heartbeatLater(r, path) })
		if err != nil {
			faults = append(faults, path+": "+err.Error())
		}
	}
	return faults
}

func heartbeatLater(r *replay, path string) error {
	a, err := r.get(path)
	if err != nil {
		return err
	}
	o, _ := a.body.(object)
	if list, ok := o.get("workers"); ok {
		items, _ := list.([]any)
		if len(items) == 0 {
			return errors.New("nobody is listed")
		}
		o, _ = items[0].(object)
	}
	registered, ok1 := number(o, "registration_time")
	beat, ok2 := number(o, "last_heartbeat_time")
	if !ok1 || !ok2 || beat <= registered {
		return fmt.Errorf("the last heartbeat is not later than the registration: %s", show(o))
	}
	return nil
}

// notCarriedOut: the message is read, and its worker hears nothing. That the command
// would have gone out is ruled out by a later command, which the worker gets first.
func notCarriedOut(r *replay, row *row) []string {
	marks := r.marks()
	faults := r.runPush(row)
	instance := mustJSON(string(row.zmq.Request)).([]any)[0].(object).text("instance_id")
	a, err := r.post("/health", `{"instance_id":"`+instance+`"}`)
	if err != nil {
		return append(faults, err.Error())
	}
	if got := brief(r.received(marks)); !slices.Equal(got, []string{instance + "/0 HealthWorkerMsg"}) {
		faults = append(faults, fmt.Sprintf("want only our /health at %s, got %q (answer %s)", instance, got, a.raw))
	}
	return faults
}

func pushedClearNowhere(r *replay, _ *row) []string {
	var faults []string
	for _, h := range r.received(nil) {
		if m, _ := h.message.(object); m.text("worker_event_id") == "Worker0PushedClear" {
			faults = append(faults, "the command on PULL was carried out: "+show(m))
		}
	}
	return faults
}

// oldWorkerIsThere: the registration of a worker up to 0.3.9.post2, and its events.
func oldWorkerIsThere(r *replay, row *row) []string {
	if faults := r.runPush(row); faults != nil {
		return faults
	}
	want := r.relocate(mustJSON(`{"workers":[` + worker("old", "127.0.0.1", 1, "127.0.0.1:2", "0") + `],"total_count":1}`))
	return r.settle(true, func() []string {
		a, err := r.get("/controller/workers?instance_id=old")
		if err != nil {
			return []string{err.Error()}
		}
		return differences(want, a.body, false)
	})
}

// clientGivesUp: the client goes away when the worker has the command; the recorded one
// waited 0.8 s for an answer that takes 2 s.
func clientGivesUp(r *replay, row *row) []string {
	marks := r.marks()
	cancel := r.inBackground("late-c", r.ranks[3])
	cancel()
	got := <-r.background["late-c"]
	if !errors.Is(got.err, context.Canceled) {
		return []string{fmt.Sprintf("want no answer to a client that has gone, got %d %s, %v", got.answer.status, got.answer.raw, got.err)}
	}
	return sameReceived(row.rest.WorkersReceived, r.received(marks))
}

func twoAtATime(r *replay, _ *row) []string {
	marks := r.marks()
	var wg sync.WaitGroup
	var faults [2]string
	for i := range faults {
		wg.Go(func() { // ends with the answer or answerLimit
			a, err := r.post("/clear", `{"instance_id":"late-c","location":"LocalCPUBackend"}`)
			if err != nil {
				faults[i] = err.Error()
			} else if d := differences(mustJSON(`{"event_id":"Clear<uuid>","num_tokens":5}`), a.body, false); a.status != http.StatusOK || len(d) > 0 {
				faults[i] = fmt.Sprintf("want 200 and 5 tokens, got %d %s", a.status, a.raw)
			}
		})
	}
	wg.Wait()
	out := slices.DeleteFunc(faults[:], func(s string) bool { return s == "" })
	got := r.received(marks)
	if len(got) != 2 {
		return append(out, fmt.Sprintf("want two commands at late-c, got %q", brief(got)))
	}
	if got[1].at.Before(got[0].answered) {
		out = append(out, "the second command was sent before the first was answered")
	}
	return out
}

// appearsLater: the worker opens its port after its command was given up. It gets
// nothing before the next command, which is its first.
func appearsLater(r *replay, _ *row) []string {
	r.ranks[4] = listen(r.t, r.zctx, "absent-d", 0, r.base+4, map[string]scripted{
		"*": {frame: mustPack(`{"type":"ClearWorkerRetMsg","num_tokens":4}`)}})
	a, err := r.post("/health", `{"instance_id":"absent-d"}`)
	if err != nil {
		return []string{err.Error()}
	}
	if got := brief(r.ranks[4].since(0)); !slices.Equal(got, []string{"absent-d/0 HealthWorkerMsg"}) {
		return []string{fmt.Sprintf("want only our /health at absent-d, got %q (answer %s)", got, a.raw)}
	}
	return nil
}

func waitingRequestEnds(r *replay, _ *row) []string {
	select {
	case got := <-r.background["silent-h"]:
		if got.err != nil {
			return []string{"no answer: " + got.err.Error()}
		}
		if got.answer.status != http.StatusGatewayTimeout {
			return []string{fmt.Sprintf("want 504, got %d %s", got.answer.status, got.answer.raw)}
		}
		return r.saysWhy(expectation{code: "timeout", detail: []string{"silent-h"}}, got.answer)
	case <-time.After(answerLimit):
		return []string{"no answer"}
	}
}

func number(o object, key string) (float64, bool) {
	v, _ := o.get(key)
	n, ok := v.(interface{ Float64() (float64, error) })
	if !ok {
		return 0, false
	}
	f, err := n.Float64()
	return f, err == nil
}
