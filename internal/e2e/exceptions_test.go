package e2e

// exceptions are the rows, beyond the defects, where kvctrl does not do as recorded on
// purpose. Each is judged by its own expectation.
var exceptions = []entry{
	{[]string{"empty: /lookup content type: no content type"}, "a missing content type is taken as JSON, as FastAPI did for years",
		expectation{status: 200, body: `{"event_id":"Lookup<uuid>","layout_info":{}}`}},
	{[]string{"fleet: lookup no content type"}, "a missing content type is taken as JSON, as FastAPI did for years",
		expectation{status: 200, body: `{"event_id":"Lookup<uuid>","layout_info":{"tp1-a":["LocalCPUBackend",1]}}`}},
	{[]string{"fleet: move other location"}, "recorded for its location; it is a move of two ranks to one, which is refused before anything is sent",
		expectation{status: 409, code: "ranks", detail: []string{"tp2-b", "tp1-a"}, received: none}},
	{[]string{"registry: one worker: heartbeat time moved only"}, "a heartbeat with another address updates it: the worker has moved",
		expectation{status: 200, body: worker("inst-a", "localhost", 21401, "127.0.0.1:21999", "2")}},
	{[]string{"registry: key stats: inst-b only"}, "the events and the registration of older workers on PULL have been taken (KVAdmitMsg twice, RegisterMsg)",
		expectation{status: 200, body: `{"total_key_count":4,"total_instance_count":2,"total_worker_count":2,"instances":[` +
			`{"instance_id":"inst-b","key_count":4,"worker_count":1},{"instance_id":"pushed","key_count":0,"worker_count":1}]}`}},
	{[]string{"registry: lookup: inst-b was there first"}, "all holders are named; inst-b was first, but came by its heartbeat and has made no full sync: what it holds is not known for sure, so it is named last",
		expectation{status: 200, body: `{"event_id":"Lookup<uuid>","layout_info":{"inst-a":["LocalCPUBackend",1],"inst-b":["LocalCPUBackend",1]}}`}},
	{[]string{"registry: workers: after 31 s"}, "current at once; with the keys and the worker taken from PULL",
		expectation{status: 200, body: `{"workers":[` + instB("5") + `,` + worker("pushed", "127.0.0.1", 21409, "null", "0") + `,` +
			worker("inst-a", "localhost", 21401, "127.0.0.1:21999", "1") + `],"total_count":3}`}},
	{[]string{"full_sync: start unknown worker"}, "refused likewise; the text, which workers only log, names the worker",
		expectation{reply: `{"type":"FullSyncStartRetMsg","sync_id":"inst-a_0_00000001","accepted":false,"error_msg":"<text>"}`}},
}
