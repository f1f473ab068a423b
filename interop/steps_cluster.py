"""The script of three replicas behind the front: what is done, in order, and what must be answered.

The engines are never restarted, whatever is killed. A lookup is asked of the front and of every replica that runs, and
the expected answer is what all of them say. Before every kill of a replica that has connections of an engine nothing
is on the wire: what was stored has been counted by all replicas (see stand_cluster.py, wait_keys). What is on the wire
at such a moment may be lost, since LMCache's PUSH acknowledges nothing; then a gap shows and a full sync is asked for.
"""

import time

from stand import CPU
from steps import MISS, Step, error

KEPT, WITHOUT_LEADER = (0, 1024), (10000, 10512)
PINNED, MOVED, COPIED, CLEARED = (20000, 20512), (30000, 30512), (40000, 41024), (50000, 50768)
AFTER_MOVE_OF_SOCKETS, WITHOUT_QUORUM, NEWCOMER = (60000, 60512), (70000, 70512), (80000, 80512)
ROLLING = [(90000, 90512), (100000, 100512), (110000, 110512)]
NO_LOSS = {"full syncs": {"inst0": [], "inst1": []}, "gaps": 0}

STEPS = []


def step(id, title, expect):
    def add(run):
        STEPS.append(Step(id, title, run, expect))
        return run
    return add


@step("form", "three empty replicas start, and the engines", {"leaders": 1, "followers": 2, "voters": 3})
def _(stand):
    stand.start()
    stand.wait_settled()
    statuses = stand.controller.statuses()
    roles = [status["role"] for status in statuses.values()]
    return {"leaders": roles.count("leader"), "followers": roles.count("follower"),
            "voters": sum(node["voter"] for node in statuses[stand.controller.leader().name]["nodes"])}


@step("register", "the engines as every replica knows them",
      [{"instance_id": "inst0", "peer_init_url": "inst0.p2p"}, {"instance_id": "inst1", "peer_init_url": "inst1.p2p"}])
def _(stand):
    stand.controller.digests()
    return stand.everywhere(lambda at: stand.workers_at(at, "instance_id", "peer_init_url"))


@step("sockets", "connections of each engine at one replica, and the replicas that have any",
      {"inst0": 3, "inst1": 3, "replicas": 2})
def _(stand):
    homes = {stand.home(engine).name for engine in stand.engines}
    return {**{e.instance: len(stand.connections(e)) for e in stand.engines}, "replicas": len(homes)}


@step("start-loss", "full syncs and gaps after a fresh start", NO_LOSS)
def _(stand):
    return stand.losses()


# --- The leader is killed between store and lookup. It has no connection of an engine. ---

@step("lead-third", "leadership is handed to the replica without engines; whose leads", "nobody")
def _(stand):
    return stand.lead(stand.somebody_elses(*stand.engines))


@step("kill-lookup", "inst0 stores 1024 tokens; kill -9 of the leader; lookup at once", {"inst0": [CPU, 1024]})
def _(stand):
    stand.store(stand.engines[0], *KEPT)
    stand.kill(stand.controller.leader())
    found = stand.lookup(*KEPT)
    stand.since_kill("looked up")
    return found


@step("kill-pin", "inst1 stores 512 tokens meanwhile; pin of inst0's, through the front", 1024)
def _(stand):
    stand.engines[1].store(*WITHOUT_LEADER)
    stand.since_kill("stored")
    pinned, stand.pinned = stand.pin("inst0", *KEPT)
    stand.since_kill("pinned")
    return pinned


@step("kill-meanwhile", "lookup of what inst1 stored meanwhile", {"inst1": [CPU, 512]})
def _(stand):
    stand.wait_keys("inst1", 2)
    return stand.lookup(*WITHOUT_LEADER)


@step("kill-p2p", "P2P lookup by hand at both replicas that are left",
      {"inst0": MISS, "inst1": [["inst0", CPU, 4, "inst0.p2p"]]})
def _(stand):
    return stand.p2p_ask(*KEPT, "inst0", "inst1")


@step("kill-p2p-engine", "inst1 itself looks up and fetches from its peer", {"promised_chunks": 4, "fetched_chunks": 4})
def _(stand):
    return stand.engines[1].p2p_lookup(*KEPT)


@step("kill-health", "health of both", {"inst0": {"0": 0}, "inst1": {"0": 0}})
def _(stand):
    return stand.health()


@step("kill-back", "the killed one is started again and catches up; different states", 1)
def _(stand):
    return stand.start_missing()


@step("kill-loss", "full syncs and gaps up to here", NO_LOSS)
def _(stand):
    return stand.losses()


# --- The leader is killed between pin and move. It is inst0's own replica. ---

@step("lead-own", "leadership is handed to the replica that has inst0; whose leads", "inst0")
def _(stand):
    return stand.lead(stand.home(stand.engines[0]))


@step("own-pin", "inst0 stores 2048 tokens; pin of 512", 512)
def _(stand):
    for prompt in PINNED, MOVED, COPIED:
        stand.store(stand.engines[0], *prompt)
    pinned, stand.pinned = stand.pin("inst0", *PINNED)
    return pinned


@step("own-move", "kill -9 of the leader, which was inst0's replica; move of 512 from inst0 to inst1 at once", 512)
def _(stand):
    stand.kill(stand.controller.leader())
    moved = stand.move("inst0", "inst1", *MOVED, copy=False)
    stand.since_kill("moved")
    return moved


@step("own-sockets", "inst0's connections, at a replica that runs", 3)
def _(stand):
    stand.home(stand.engines[0])
    return len(stand.connections(stand.engines[0]))


@step("own-lookup", "lookup of the moved, the pinned and the first tokens",
      {"moved": {"inst1": [CPU, 512]}, "pinned": {"inst0": [CPU, 512]}, "first": {"inst0": [CPU, 1024]}})
def _(stand):
    stand.wait_keys("inst0", 10)
    stand.wait_keys("inst1", 4)
    return {"moved": stand.lookup(*MOVED), "pinned": stand.lookup(*PINNED), "first": stand.lookup(*KEPT)}


@step("own-copy", "copy of 1024 from inst0 to inst1", 1024)
def _(stand):
    copied = stand.move("inst0", "inst1", *COPIED, copy=True)
    stand.wait_keys("inst1", 8)
    return copied


@step("own-copy-lookup", "lookup of the copied tokens", {"inst0": [CPU, 1024], "inst1": [CPU, 1024]})
def _(stand):
    return stand.lookup(*COPIED)


@step("own-check-finish", "check_finish of the killed leader's pin and of its successor's copy",
      {"pin": "done", "copy": "done"})
def _(stand):
    return {"pin": stand.outcome(stand.pinned), "copy": stand.outcome(stand.last_move)}


@step("own-p2p", "P2P lookup by hand, held by both",
      {"inst0": [["inst1", CPU, 4, "inst1.p2p"]], "inst1": [["inst0", CPU, 4, "inst0.p2p"]]})
def _(stand):
    return stand.p2p_ask(*COPIED, "inst0", "inst1")


@step("own-p2p-engine", "inst0, whose connections have moved, looks up and fetches what inst1 has",
      {"promised_chunks": 2, "fetched_chunks": 2})
def _(stand):
    return stand.engines[0].p2p_lookup(*MOVED)


@step("own-clear", "inst0 stores 768 tokens; clear inst0", 768)
def _(stand):
    stand.store(stand.engines[0], *CLEARED)
    cleared = stand.post("/clear", instance_id="inst0", location=CPU)
    stand.wait_keys("inst0", 10)
    return cleared


@step("own-clear-lookup", "lookup of cleared and of pinned tokens", {"cleared": {}, "pinned": {"inst0": [CPU, 512]}})
def _(stand):
    return {"cleared": stand.lookup(*CLEARED), "pinned": stand.lookup(*PINNED)}


@step("own-back", "the killed one is started again and catches up; different states", 1)
def _(stand):
    return stand.start_missing()


@step("own-loss", "full syncs and gaps up to here", NO_LOSS)
def _(stand):
    stand.wait_settled()
    return stand.losses()


# --- An engine's own replica is killed, which does not lead. ---

@step("follower", "leadership is handed away from inst1's replica; kill -9 of that one; inst1's connections", 3)
def _(stand):
    inst1 = stand.engines[1]
    stand.controller.transfer(stand.somebody_elses(inst1))
    stand.kill(stand.home(inst1))
    stand.home(inst1)
    stand.since_kill("all connected elsewhere")
    return len(stand.connections(inst1))


@step("follower-store", "inst1 stores 512 tokens; lookup", {"inst1": [CPU, 512]})
def _(stand):
    stand.store(stand.engines[1], *AFTER_MOVE_OF_SOCKETS)
    return stand.lookup(*AFTER_MOVE_OF_SOCKETS)


@step("follower-p2p-engine", "inst1 looks up and fetches what inst0 has", {"promised_chunks": 2, "fetched_chunks": 2})
def _(stand):
    return stand.engines[1].p2p_lookup(*PINNED)


@step("follower-heartbeats", "both engines' heartbeats are answered; health", {"inst0": {"0": 0}, "inst1": {"0": 0}})
def _(stand):
    stand.wait_settled()
    return stand.health()


@step("follower-back", "the killed one is started again and catches up; different states", 1)
def _(stand):
    return stand.start_missing()


# --- One after the other is stopped and started, as for an upgrade. ---

@step("rolling", "each replica in turn: SIGTERM, inst0 stores 512 tokens, lookup, start again",
      [{"exit code": 0, "lookup": {"inst0": [CPU, 512]}, "different states": 1}] * 3)
def _(stand):
    seen = []
    for replica, prompt in zip(stand.controller.replicas, ROLLING):
        code = replica.process.terminate()
        stand.home(stand.engines[0])
        stand.store(stand.engines[0], *prompt)
        seen.append({"exit code": code, "lookup": stand.lookup(*prompt), "different states": stand.start_missing()})
    return seen


@step("rolling-loss", "full syncs and gaps up to here", NO_LOSS)
def _(stand):
    stand.wait_settled()
    return stand.losses()


# --- Two of three are killed: no quorum. inst0's replica is left, and a new engine starts. ---

@step("quorum-lookup", "kill -9 of the leader and of another, inst0's replica is left; lookup", {"inst0": [CPU, 1024]})
def _(stand):
    left = stand.home(stand.engines[0])
    others = [replica for replica in stand.controller.replicas if replica is not left]
    stand.controller.transfer(others[0])
    stand.kill(*others)
    return stand.lookup(*KEPT)


@step("quorum-pin", "a command without a quorum", error(503, "no leader"))
def _(stand):
    return stand.pin("inst0", *KEPT)[0]


@step("quorum-store", "inst0 stores 512 tokens; lookup", {})
def _(stand):
    stand.engines[0].store(*WITHOUT_QUORUM)
    return stand.lookup(*WITHOUT_QUORUM)


@step("quorum-register", "a third engine starts; its registration is answered before LMCache's 30 s", True)
def _(stand):
    engine = stand.add_engine("inst2")
    engine.wait_registering()
    begun = time.monotonic()
    engine.wait_registered()
    took = time.monotonic() - begun
    stand.remarks.append(f"answered after {took:.1f} s")
    return took < 30


@step("quorum-alone", "who leads while it is answered", "nobody")
def _(stand):
    (status,) = stand.controller.statuses().values()
    return status["leader"]["node_id"] or "nobody"


@step("quorum-back", "the killed ones are started again; different states", 1)
def _(stand):
    return stand.start_missing()


@step("quorum-meanwhile", "lookup of what inst0 stored without a quorum", {"inst0": [CPU, 512]})
def _(stand):
    stand.wait_keys("inst0", 18)
    return stand.lookup(*WITHOUT_QUORUM)


@step("quorum-newcomer", "the new engine settles and stores 512 tokens; lookup", {"inst2": [CPU, 512]})
def _(stand):
    stand.wait_settled()
    stand.store(stand.engines[2], *NEWCOMER)
    return stand.lookup(*NEWCOMER)


@step("quorum-copy", "copy of them to inst0; lookup", {"copied": 512, "lookup": {"inst2": [CPU, 512], "inst0": [CPU, 512]}})
def _(stand):
    copied = stand.move("inst2", "inst0", *NEWCOMER, copy=True)
    stand.wait_keys("inst0", 20)
    return {"copied": copied, "lookup": stand.lookup(*NEWCOMER)}


@step("quorum-health", "health of all", {"inst0": {"0": 0}, "inst1": {"0": 0}, "inst2": {"0": 0}})
def _(stand):
    return stand.health()


@step("end-loss", "full syncs and gaps up to the end",
      {"full syncs": {"inst0": [], "inst1": [], "inst2": []}, "gaps": 0})
def _(stand):
    return stand.losses()


@step("end-engines", "engines that still run as the process they were started as", ["inst0", "inst1", "inst2"])
def _(stand):
    return [engine.instance for engine in stand.engines if engine.process.running()]
