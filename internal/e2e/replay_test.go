package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"regexp"
	"sort"
	"strconv"
	"strings"
	"testing"
	"time"

	zmq "github.com/pebbe/zmq4"
)

const (
	answerLimit = 10 * time.Second // beyond it a request hangs
	settleLimit = 5 * time.Second  // for the effect of an earlier message on PULL
)

// scenarioOptions say how the replica of a scenario differs from the plain one.
type scenarioOptions struct {
	args        []string
	noHeartbeat bool
	// scale is applied to the scripted delays of the fleet.
	scale float64
}

// stuck: LMCache's clients waited 0.8 to 1.5 s for workers that take 1 to 2.5 s; here
// all is five times as fast, under a deadline that two late answers fit into. registry:
// LMCache asks all workers for a full sync at the same moment.
var optionsOf = map[string]scenarioOptions{
	"stuck":             {args: []string{"--worker-deadline", "1500ms"}, scale: 0.2},
	"reaping":           {args: []string{"--health-check-interval", "1", "--lmcache-worker-timeout", "3"}},
	"no_heartbeat_port": {noHeartbeat: true},
	"registry":          {args: []string{"--max-syncs", "100000"}},
}

// commandPorts are the workers of scenarios that register by themselves: what the
// recording shows as their answers, and another one for an address that the Python
// controller never used.
var commandPorts = map[string][]fleetWorker{
	"registry": {
		scriptedWorker("inst-a", 0, `{"type":"ClearWorkerRetMsg","num_tokens":1}`),
		scriptedWorker("inst-a", 1, `{"type":"ClearWorkerRetMsg","num_tokens":2}`),
		scriptedWorker("inst-b", 2, `{"type":"ClearWorkerRetMsg","num_tokens":3}`),
	},
}

func scriptedWorker(instance string, offset int, answer string) fleetWorker {
	w := fleetWorker{Instance: instance, Offset: offset, Listen: true}
	if err := json.Unmarshal([]byte(`{"*":{"msg":`+answer+`}}`), &w.Replies); err != nil {
		panic(fmt.Sprintf("bug: answer %q: %v", answer, err))
	}
	return w
}

// replay is one scenario against one replica.
type replay struct {
	t       *testing.T
	replica *Replica
	rules   rules
	tally   *tally

	zctx   *zmq.Context
	base   int           // the first worker port
	ranks  map[int]*rank // by port offset
	client *http.Client

	replySide, beatSide *dealer
	push                *zmq.Socket

	// What the harness has sent, and how much of it the recording does not have.
	pushed, extraPushed int
	asked, extraAsked   int

	nextSeq    map[string]int64 // of the probes, by instance
	background map[string]chan backgroundAnswer
	once       map[string]bool
}

type backgroundAnswer struct {
	answer answer
	err    error
}

// rules are the tables of what is wanted.
type rules struct{ better, exceptions *ruleBook }

func newReplay(t *testing.T, zctx *zmq.Context, scenario string, rows []*row, rl rules, tl *tally) *replay {
	o := optionsOf[scenario]
	r := &replay{t: t, rules: rl, tally: tl, zctx: zctx, base: FreePorts(t, portsOfAFleet), ranks: map[int]*rank{},
		client: &http.Client{Transport: &http.Transport{DisableKeepAlives: true, DisableCompression: true},
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }},
		nextSeq: map[string]int64{"inst-a": 1, "fine-e": 3, "quiet": 2}, background: map[string]chan backgroundAnswer{}, once: map[string]bool{}}
	r.replica = Start(t, Options{Args: o.args, NoHeartbeat: o.noHeartbeat})
	r.replySide = &dealer{zctx: zctx, addr: r.replica.ReplyAddr()}
	r.beatSide = &dealer{zctx: zctx, addr: r.replica.HeartbeatAddr()}
	push, err := connect(zctx, zmq.PUSH, r.replica.PullAddr())
	if err != nil {
		t.Fatal(err)
	}
	r.push = push
	t.Cleanup(func() {
		if err := errors.Join(r.push.Close(), r.replySide.close(), r.beatSide.close()); err != nil {
			t.Error(err)
		}
	})
	workers := commandPorts[scenario]
	for _, row := range rows {
		if fleet := loadFleets(t)[row.Setup]; len(fleet) > 0 {
			workers = fleet
			break
		}
	}
	scale := o.scale
	if scale == 0 {
		scale = 1
	}
	for _, w := range workers {
		if w.Listen {
			r.ranks[w.Offset] = listen(t, zctx, w.Instance, w.Worker, r.base+w.Offset, w.scripts(t, scale))
		}
	}
	return r
}

// run carries out a row and returns what is wrong.
func (r *replay) run(row *row) []string {
	exception, err := r.rules.exceptions.find(row.Name)
	if err != nil {
		return []string{err.Error()}
	}
	better, err := r.rules.better.find(row.Name)
	if err != nil {
		return []string{err.Error()}
	}
	var want *expectation
	switch {
	case row.Verdict == "defect":
		if better == nil {
			return []string{"no expectation for this defect"}
		}
		want = &better.want
	case better != nil:
		return []string{"bug: a better answer is expected where the recording is no defect"}
	}
	if exception != nil {
		if want != nil {
			return []string{"bug: a defect needs no exception"}
		}
		want = &exception.want
		r.tally.exception(row, exception.reason)
	}
	if hook := before[row.Name]; hook != nil {
		hook(r)
	}
	switch {
	case want != nil && want.do != nil:
		return want.do(r, row)
	case row.rest != nil:
		return r.runREST(row, want)
	case row.zmq.Observed != nil:
		return r.observe(row)
	case row.zmq.Socket == nil:
		return []string{"bug: no socket and nothing observed"}
	case *row.zmq.Socket == "PUSH/PULL":
		if want != nil && !want.taken {
			return []string{"bug: an expectation for PULL other than taken"}
		}
		return r.runPush(row)
	default:
		return r.runDealer(row, want)
	}
}

// settle asks again until nothing is wrong, where asking changes nothing and an earlier
// message may not have had its effect yet.
func (r *replay) settle(again bool, try func() []string) []string {
	var faults []string
	if !again || r.pushed == 0 {
		return try()
	}
	_ = Poll(settleLimit, func() error { // the faults of the last try tell
		if faults = try(); len(faults) > 0 {
			return errors.New(faults[0])
		}
		return nil
	})
	return faults
}

var readOnly = regexp.MustCompile(`^(GET|HEAD) |^POST /(lookup|query_instance|query_worker_info)\b`)

func (r *replay) runREST(row *row, want *expectation) []string {
	req := row.rest.Request
	return r.settle(readOnly.MatchString(req.Method+" "+req.Path), func() []string {
		marks := r.marks()
		a, err := r.rest(context.Background(), row)
		if err != nil {
			return []string{"no answer: " + err.Error()}
		}
		return append(headersOfEveryAnswer(a), r.judge(row, want, a, r.received(marks))...)
	})
}

func (r *replay) judge(row *row, want *expectation, a answer, got []heard) []string {
	if want != nil {
		return r.meets(*want, row, a, got)
	}
	recorded := r.relocate(row.rest.recorded(r.t))
	switch row.Verdict {
	case "shape":
		return sameShape(row.rest, recorded, a)
	case "optional":
		if a.status >= 500 && a.status != http.StatusNotImplemented {
			return []string{fmt.Sprintf("status %d: %s", a.status, shorten(string(a.raw), 400))}
		}
		if d := sameAnswer(row.rest, recorded, a, false); len(d) > 0 {
			r.tally.note(row, d[0])
		}
		return nil
	case "contract", "superset":
		var faults []string
		if o, ok := recorded.(object); ok && len(o) == 1 && o[0].key == "families" {
			return familyNames(recorded, string(a.raw))
		}
		faults = append(faults, sameAnswer(row.rest, recorded, a, row.Verdict == "superset")...)
		if isMetrics(recorded) {
			faults = append(faults, sameMetrics(recorded, string(a.raw), r.gauges(recorded, row.Verdict, nil))...)
		}
		faults = append(faults, sameReceived(row.rest.WorkersReceived, got)...)
		return append(faults, sameEventID(a, got)...)
	}
	return []string{"bug: verdict " + row.Verdict}
}

// gauges are the values that must differ from the recording: those of a rule, and the
// counts of what the harness has sent. Where the recording is a defect its counts are
// those of a socket that is not read any more.
func (r *replay) gauges(recorded any, verdict string, rule map[string]float64) map[string]float64 {
	fs, err := recordedMetrics(recorded)
	if err != nil {
		r.t.Fatal(err)
	}
	out := map[string]float64{
		"pull_socket_message_count":  fs["pull_socket_message_count"].value + float64(r.extraPushed),
		"reply_socket_message_count": fs["reply_socket_message_count"].value + float64(r.extraAsked),
	}
	if verdict == "defect" {
		out["pull_socket_message_count"], out["reply_socket_message_count"] = float64(r.pushed), float64(r.asked)
	}
	for name, v := range rule {
		out[name] = v
	}
	return out
}

// rest sends a row's request.
func (r *replay) rest(ctx context.Context, row *row) (answer, error) {
	var body io.Reader
	if row.rest.Request.Body != nil || row.rest.Request.BodyHex != "" {
		body = bytes.NewReader(row.rest.body(r.t))
	}
	return r.send(ctx, row.rest.Request.Method, row.rest.Request.Path, row.rest.Request.Headers, body)
}

func (r *replay) send(ctx context.Context, method, path string, headers map[string]string, body io.Reader) (answer, error) {
	ctx, cancel := context.WithTimeout(ctx, answerLimit)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, r.replica.URL(path), body)
	if err != nil {
		return answer{}, err
	}
	for k, v := range headers {
		req.Header.Set(k, v)
	}
	resp, err := r.client.Do(req)
	if err != nil {
		return answer{}, err
	}
	defer resp.Body.Close()
	a := answer{status: resp.StatusCode, header: resp.Header}
	if a.raw, err = io.ReadAll(resp.Body); err != nil {
		return answer{}, err
	}
	if v, err := parseJSON(a.raw); err == nil {
		a.body, a.json = v, true
	}
	return a, nil
}

func (r *replay) post(path, body string) (answer, error) {
	return r.send(context.Background(), http.MethodPost, path, map[string]string{"Content-Type": "application/json"}, strings.NewReader(body))
}

func (r *replay) get(path string) (answer, error) {
	return r.send(context.Background(), http.MethodGet, path, nil, nil)
}

// runPush sends what a row has for PULL and waits until it has been read.
func (r *replay) runPush(row *row) []string {
	request := r.relocate(mustJSON(string(row.zmq.Request)))
	list, ok := request.([]any)
	if !ok {
		list = []any{request}
	}
	frames := make([][]byte, len(list))
	for i, m := range list {
		var err error
		if frames[i], err = pack(m); err != nil {
			return []string{err.Error()}
		}
	}
	if strings.HasSuffix(row.Name, ": multipart") {
		return r.pushFrames(frames)
	}
	for _, f := range frames {
		if faults := r.pushFrames([][]byte{f}); faults != nil {
			return faults
		}
	}
	return nil
}

func (r *replay) pushFrames(parts [][]byte) []string {
	if _, err := r.push.SendMessage(parts); err != nil {
		return []string{err.Error()}
	}
	r.pushed += len(parts)
	return r.allRead()
}

// pushExtra sends a message that the recording does not have.
func (r *replay) pushExtra(message string) []string {
	frame, err := pack(r.relocate(mustJSON(message)))
	if err != nil {
		return []string{err.Error()}
	}
	r.extraPushed++
	return r.pushFrames([][]byte{frame})
}

// allRead waits until PULL has read all that was sent to it and the registry has it, so
// that what follows on another socket comes after it. The status of a full sync is
// answered after everything that is on its way.
func (r *replay) allRead() []string {
	for _, done := range []func(map[string]family) bool{
		func(m map[string]family) bool { return int(m["pull_socket_message_count"].value) >= r.pushed },
		func(m map[string]family) bool { return m["pull_socket_active_requests"].value == 0 },
	} {
		err := Poll(settleLimit, func() error {
			a, err := r.get("/metrics")
			if err != nil {
				return err
			}
			m, err := metrics(string(a.raw))
			if err != nil {
				return err
			}
			if !done(m) {
				return fmt.Errorf("PULL has counted %v of %d messages and works on %v", m["pull_socket_message_count"].value,
					r.pushed, m["pull_socket_active_requests"].value)
			}
			return nil
		})
		if err != nil {
			return []string{err.Error()}
		}
	}
	if _, err := r.askExtra("DEALER/ROUTER", `{"type":"FullSyncStatusMsg","instance_id":"-","worker_id":0,"sync_id":"-"}`); err != nil {
		return []string{err.Error()}
	}
	return nil
}

// runDealer asks on a ROUTER socket and judges the reply.
func (r *replay) runDealer(row *row, want *expectation) []string {
	request := r.relocate(mustJSON(string(row.zmq.Request)))
	frame, err := pack(request)
	if err != nil {
		return []string{err.Error()}
	}
	o, _ := request.(object)
	first := true
	return r.settle(o.text("type") == "BatchedP2PLookupMsg", func() []string {
		if !first {
			r.extraAsked++
		}
		first = false
		got, err := r.ask(*row.zmq.Socket, frame)
		if err != nil {
			return []string{err.Error()}
		}
		recorded := r.relocate(mustJSON(string(row.zmq.Reply)))
		switch {
		case want != nil && want.reply != "":
			return differences(r.relocate(mustJSON(want.reply)), got, false)
		case want != nil && !want.like:
			return []string{"bug: an expectation without a reply"}
		case row.Verdict == "optional":
			if d := differences(recorded, got, false); len(d) > 0 {
				r.tally.note(row, d[0])
			}
			return nil
		}
		return sameReply(row.Verdict, recorded, got)
	})
}

func (r *replay) ask(socket string, frame []byte) (any, error) {
	d := r.replySide
	if strings.HasPrefix(socket, "heartbeat") {
		d = r.beatSide
	}
	r.asked++
	reply, err := d.ask(frame, settleLimit)
	if err != nil {
		return nil, err
	}
	return unpack(reply)
}

// askExtra asks what the recording does not have.
func (r *replay) askExtra(socket, message string) (any, error) {
	frame, err := pack(r.relocate(mustJSON(message)))
	if err != nil {
		return nil, err
	}
	r.extraAsked++
	return r.ask(socket, frame)
}

func (r *replay) relocate(v any) any { return relocate(v, r.base, r.replica.HeartbeatAddr()) }

// marks and received tell what reached the workers between two moments.
func (r *replay) marks() map[int]int {
	out := map[int]int{}
	for offset, k := range r.ranks {
		out[offset] = k.count()
	}
	return out
}

func (r *replay) received(marks map[int]int) []heard {
	var out []heard
	for offset, k := range r.ranks {
		out = append(out, k.since(marks[offset])...)
	}
	sort.SliceStable(out, func(i, j int) bool {
		if out[i].instance != out[j].instance {
			return out[i].instance < out[j].instance
		}
		return out[i].worker < out[j].worker
	})
	return out
}

// totalKeys is what key-stats counts, of one instance or of all.
func (r *replay) totalKeys(instance string) (int64, error) {
	a, err := r.get("/controller/key-stats")
	if err != nil {
		return 0, err
	}
	var stats struct {
		Total     int64 `json:"total_key_count"`
		Instances []struct {
			ID   string `json:"instance_id"`
			Keys int64  `json:"key_count"`
		}
	}
	if err := json.Unmarshal(a.raw, &stats); err != nil {
		return 0, fmt.Errorf("key-stats %s: %w", a.raw, err)
	}
	for _, i := range stats.Instances {
		if i.ID == instance {
			return i.Keys, nil
		}
	}
	if instance != "" {
		return 0, fmt.Errorf("key-stats does not name %s: %s", instance, a.raw)
	}
	return stats.Total, nil
}

// event is a numbered operation on the CPU cache of an instance's rank 0.
func (r *replay) event(instance, op string, key int64) []string {
	seq := r.nextSeq[instance]
	r.nextSeq[instance]++
	return r.pushExtra(`{"type":"BatchedKVOperationMsg","instance_id":` + strconv.Quote(instance) +
		`,"worker_id":0,"location":"LocalCPUBackend","operations":[{"op_type":"` + op + `","key":` +
		strconv.FormatInt(key, 10) + `,"seq_num":` + strconv.FormatInt(seq, 10) + `}]}`)
}
