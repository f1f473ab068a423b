"""The script: what is done, in order, and what kvctrld must answer.

Every step stands on the ones before it. A step returns its answer; `expect` is the answer that kvctrld must give, or a
function that says whether an answer will do. Each prompt has tokens of its own, so that steps do not meet by accident.
"""

from dataclasses import dataclass
from typing import Any, Callable

from processes import GaveUp
from stand import CPU

DISK = "LocalDiskBackend"
COPIED, PINNED, MOVED, CLEARED = (0, 1024), (10000, 10512), (20000, 20512), (30000, 30768)
BEFORE_KILL, WHILE_AWAY, AFTER_RESTART = (40000, 41024), (50000, 50512), (60000, 60512)
AFTER_COMPRESS, AFTER_DECOMPRESS = (70000, 70256), (80000, 80256)
NO_SYNC = {"inst0": [], "inst1": []}
MISS = [["", "", 0, ""]]


@dataclass
class Step:
    id: str
    title: str
    run: Callable
    expect: Any

    def satisfied_by(self, answer):
        return self.expect(answer) if callable(self.expect) else answer == self.expect


STEPS = []


def step(id, title, expect):
    def add(run):
        STEPS.append(Step(id, title, run, expect))
        return run
    return add


def error(status, *words):
    """Expects an error answer of that status with all the words in its detail."""
    def matches(answer):
        return (isinstance(answer, dict) and answer.get("status") == status
                and all(word in answer["detail"] for word in words))
    matches.text = f"status {status} with the words {', '.join(map(repr, words))}"
    return matches


def compressing(what):
    """Expects 1024 tokens, or the words of a release that can do it on a GPU only; found they are either way."""
    refused = error(502, "Worker error: Found no NVIDIA driver")

    def matches(answer):
        return answer["lookup"] == {"inst0": [CPU, 1024]} and (answer[what] == 1024 or refused(answer[what]))
    matches.text = f"the tokens found, and {what} 1024 or {refused.text}"
    return matches


@step("register", "both engines start and register", [
    {"instance_id": "inst0", "worker_id": 0, "peer_init_url": "inst0.p2p"},
    {"instance_id": "inst1", "worker_id": 0, "peer_init_url": "inst1.p2p"}])
def _(stand):
    stand.start()
    stand.wait_settled()
    return stand.workers("instance_id", "worker_id", "peer_init_url")


@step("start-sync", "full syncs asked for after a fresh start", NO_SYNC)
def _(stand):
    return stand.full_syncs()


@step("lookup", "inst0 stores 1024 tokens; lookup", {"inst0": [CPU, 1024]})
def _(stand):
    stand.store(stand.engines[0], *COPIED)
    return stand.lookup(*COPIED)


@step("lookup-longer", "lookup of a longer prompt", {"inst0": [CPU, 1024]})
def _(stand):
    return stand.lookup(COPIED[0], COPIED[1] + 400)


@step("lookup-miss", "lookup of tokens nobody has", {})
def _(stand):
    return stand.lookup(900000, 901024)


@step("health", "health of inst0", {"0": 0})
def _(stand):
    return stand.post("/health", instance_id="inst0")


@step("health-unknown", "health of an unknown instance", {})
def _(stand):
    return stand.post("/health", instance_id="nobody")


@step("query-instance", "which instance is at inst0's address", "inst0")
def _(stand):
    return stand.post("/query_instance", event_id="any", ip=stand.workers("ip")[0]["ip"])


@step("controller-workers", "GET /controller/workers of inst0", {
    "total_count": 1, "key_count": 4, "fields": [
        "instance_id", "ip", "key_count", "last_heartbeat_time", "peer_init_url", "port", "registration_time",
        "worker_id"]})
def _(stand):
    _, answer = stand.controller.endpoint.request("GET", "/controller/workers?instance_id=inst0")
    worker = answer["workers"][0]
    return {"total_count": answer["total_count"], "key_count": worker["key_count"], "fields": sorted(worker)}


@step("pin", "inst0 stores 512 tokens; pin", 512)
def _(stand):
    stand.store(stand.engines[0], *PINNED)
    return stand.on_tokens("/pin", PINNED)


@step("p2p-one", "P2P lookup by hand, held by inst0", {
    "inst0": MISS, "inst1": [["inst0", CPU, 2, "inst0.p2p"]], "stranger": [["inst0", CPU, 2, "inst0.p2p"]]})
def _(stand):
    return stand.p2p_ask(*PINNED, "inst0", "inst1", "stranger")


@step("p2p-engine", "inst1 itself looks up at the controller and fetches from its peer",
      {"promised_chunks": 2, "fetched_chunks": 2})
def _(stand):
    return stand.engines[1].p2p_lookup(*PINNED)


@step("copy", "move with copy, inst0 to inst1", 1024)
def _(stand):
    before = stand.keys("inst1")
    moved = stand.move("inst0", "inst1", *COPIED, copy=True)
    stand.wait_keys("inst1", before + 4)
    return moved


@step("copy-lookup", "lookup of the copied tokens", {"inst0": [CPU, 1024], "inst1": [CPU, 1024]})
def _(stand):
    return stand.lookup(*COPIED)


@step("check-finish", "check_finish of that move", "done")
def _(stand):
    return stand.post("/check_finish", event_id=stand.last_move)


@step("copy-confirmed", "whether the destination of that move has reported what it took", "confirmed")
def _(stand):
    return stand.confirmation(stand.last_move)


@step("p2p-both", "P2P lookup by hand, held by both", {
    "inst0": [["inst1", CPU, 4, "inst1.p2p"]], "inst1": [["inst0", CPU, 4, "inst0.p2p"]]})
def _(stand):
    return stand.p2p_ask(*COPIED, "inst0", "inst1")


@step("move", "inst0 stores 512 tokens; move to inst1", 512)
def _(stand):
    source, target = stand.keys("inst0"), stand.keys("inst1")
    stand.store(stand.engines[0], *MOVED)
    moved = stand.move("inst0", "inst1", *MOVED, copy=False)
    stand.wait_keys("inst0", source)
    stand.wait_keys("inst1", target + 2)
    return moved


@step("move-lookup", "lookup of the moved tokens", {"inst1": [CPU, 512]})
def _(stand):
    return stand.lookup(*MOVED)


@step("move-nothing", "move of tokens that inst0 does not have", 0)
def _(stand):
    return stand.move("inst0", "inst1", *MOVED, copy=False)


@step("move-disk", "move to a location the worker refuses", error(502, "Only support moving to cpu for now"))
def _(stand):
    return stand.move("inst0", "inst1", *COPIED, copy=True, location=DISK)


@step("compress-unknown", "compress with a method the worker does not know", 0)
def _(stand):
    return stand.on_tokens("/compress", COPIED, method="none")


@step("clear", "inst0 stores 768 tokens; clear inst0", 768)
def _(stand):
    before = stand.keys("inst0")
    stand.store(stand.engines[0], *CLEARED)
    cleared = stand.post("/clear", instance_id="inst0", location=CPU)
    stand.wait_keys("inst0", before)
    return cleared


@step("clear-lookup", "lookup of cleared and of pinned tokens", {"cleared": {}, "pinned": {"inst0": [CPU, 512]}})
def _(stand):
    return {"cleared": stand.lookup(*CLEARED), "pinned": stand.lookup(*PINNED)}


@step("clear-disk", "clear of a location without a clear", 0)
def _(stand):
    return stand.post("/clear", instance_id="inst0", location=DISK)


@step("clear-unknown", "clear of an unknown instance", error(404, "nobody"))
def _(stand):
    return stand.post("/clear", instance_id="nobody", location=CPU)


@step("metrics", "LMCache's gauges, and the keys they count", {"gauges": 13, "keys": 12})
def _(stand):
    _, text = stand.controller.endpoint.request("GET", "/metrics")
    prefix = "lmcache:cache_controller_"
    gauges = dict(line.split("{")[0:1] + line.split()[-1:] for line in text.splitlines() if line.startswith(prefix))
    return {"gauges": len(gauges), "keys": int(float(gauges[prefix + "kv_pool_keys_count"]))}


@step("controller-kill", "inst0 stores 1024 tokens; kill -9 of the controller, inst0 stores 512 more, start again; "
      "lookup at once", {"stored before": {"inst0": [CPU, 1024]}, "copied": {"inst0": [CPU, 1024], "inst1": [CPU, 1024]}})
def _(stand):
    stand.store(stand.engines[0], *BEFORE_KILL)
    stand.controller.kill()
    stand.engines[0].store(*WHILE_AWAY)
    stand.controller.start()
    return {"stored before": stand.lookup(*BEFORE_KILL), "copied": stand.lookup(*COPIED)}


@step("controller-kill-away", "lookup of what was stored meanwhile", {"inst0": [CPU, 512]})
def _(stand):
    stand.wait_settled()
    stand.wait_keys("inst0", 12)
    stand.wait_keys("inst1", 6)
    return stand.lookup(*WHILE_AWAY)


@step("controller-kill-sync", "full syncs asked for up to here", NO_SYNC)
def _(stand):
    return stand.full_syncs()


@step("controller-kill-health", "health of inst1 after that", {"0": 0})
def _(stand):
    return stand.post("/health", instance_id="inst1")


@step("compress", "inst0 compresses 1024 tokens with cachegen and stores 256; lookup", compressing("compressed"))
def _(stand):
    compressed = stand.on_tokens("/compress", BEFORE_KILL, method="cachegen")
    stand.engines[0].store(*AFTER_COMPRESS)  # known with all that it said before
    stand.wait_keys("inst0", 13)
    return {"compressed": compressed, "lookup": stand.lookup(*BEFORE_KILL)}


@step("decompress", "inst0 decompresses them and stores 256; lookup", compressing("decompressed"))
def _(stand):
    decompressed = stand.on_tokens("/decompress", BEFORE_KILL, method="cachegen")
    stand.engines[0].store(*AFTER_DECOMPRESS)
    stand.wait_keys("inst0", 14)
    return {"decompressed": decompressed, "lookup": stand.lookup(*BEFORE_KILL)}


@step("decompress-plain", "inst0 decompresses what is not compressed", error(502, "Worker error"))
def _(stand):
    return stand.on_tokens("/decompress", WHILE_AWAY, method="cachegen")


@step("dead-peer", "kill -9 of inst0; move with copy to it", error(502, "Resource temporarily unavailable"))
def _(stand):
    stand.engines[0].kill()
    return stand.move("inst1", "inst0", *COPIED, copy=True)


@step("dead-peer-health", "health of inst1 after that", {"0": 0})
def _(stand):
    return stand.post("/health", instance_id="inst1")


@step("engine-restart", "inst0 is started again on other ports; lookup as soon as it has registered",
      {"its own": {}, "copied": {"inst1": [CPU, 1024]}})
def _(stand):
    stand.engines[0].start()
    stand.engines[0].wait_registered()
    return {"its own": stand.lookup(*BEFORE_KILL), "copied": stand.lookup(*COPIED)}


@step("engine-restart-address", "P2P addresses after that",
      [{"instance_id": "inst0", "peer_init_url": "inst0.p2p"}, {"instance_id": "inst1", "peer_init_url": "inst1.p2p"}])
def _(stand):
    stand.wait_settled()
    return stand.workers("instance_id", "peer_init_url")


@step("engine-restart-store", "inst0 stores 512 tokens; lookup", {"inst0": [CPU, 512]})
def _(stand):
    stand.store(stand.engines[0], *AFTER_RESTART)
    return stand.lookup(*AFTER_RESTART)


@step("engine-restart-move", "move with copy, inst1 to the new inst0; lookup",
      {"moved": 1024, "lookup": {"inst0": [CPU, 1024], "inst1": [CPU, 1024]}})
def _(stand):
    moved = stand.move("inst1", "inst0", *COPIED, copy=True, timeout=10)
    try:
        stand.wait_keys("inst0", 6, seconds=10)
    except GaveUp:
        pass  # the lookup shows it
    return {"moved": moved, "lookup": stand.lookup(*COPIED)}


@step("engine-restart-health", "health of the new inst0", {"0": 0})
def _(stand):
    return stand.post("/health", instance_id="inst0", timeout=10)


@step("engine-restart-clear", "clear of the new inst0", 512)
def _(stand):
    return stand.post("/clear", instance_id="inst0", location=CPU, timeout=10)


@step("end-sync", "full syncs the engines of now were asked for", NO_SYNC)
def _(stand):
    return stand.full_syncs()
