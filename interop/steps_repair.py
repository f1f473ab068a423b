"""The script of losses: the engines' events go through links that lose some, and must be made good.

A link loses whole messages of LMCache's, which no protocol below notices. What is lost shows with the next event of the
same worker; the worker is asked for a full sync with its next heartbeat, and what was known before stays known until that
sync is complete.
"""

import time

from stand import CPU
from steps import MISS, Step

KEPT, ADMITTED, SHOWN = (0, 1024), [(10000 + 1000 * i, 10512 + 1000 * i) for i in range(10)], (20000, 20256)
AGAIN, EVICTED, SHOWN_AGAIN = (30000, 31024), [(40000, 40512), (41000, 41512)], (50000, 50256)
BATCH_LOST, SHOWN_BATCH = (60000, 60512), (61000, 61256)
END_LOST, SHOWN_END = (70000, 70512), (71000, 71256)
SHOWN_STORM = (80000, 80256)
STORM_SECONDS = 20

STEPS = []


def step(id, title, expect):
    def add(run):
        STEPS.append(Step(id, title, run, expect))
        return run
    return add


def repaired(questions=1, **more):
    """What is seen of every loss: the engine is told in time, let go at that question, and the index is right again."""
    return {"asked within two heartbeats": True, "questions until released": questions, "old keys missing": {},
            "differences": {}, **more}


@step("start", "both engines start, each behind a link; inst0 stores 1024 tokens, which are pinned; lookup",
      {"pinned": 1024, "lookup": {"inst0": [CPU, 1024]}, "differences": {}})
def _(stand):
    stand.start()
    return {"pinned": stand.keep(*KEPT), "lookup": stand.lookup(*KEPT), "differences": stand.differences()}


@step("start-loss", "full syncs, and messages that inst0's link has lost", {"full syncs": {"inst0": [], "inst1": []}, "lost": 0})
def _(stand):
    return {"full syncs": stand.full_syncs(), "lost": stand.link.lost()}


@step("admits", "inst0 stores ten prompts of 512 tokens, of whose messages every second one is lost, and 256 tokens more; "
      "lookups once it is repaired", repaired(lost=True, found=10))
def _(stand):
    stand.link.lose_every(2)
    with stand.repair(KEPT) as seen:
        stand.store_apart(*ADMITTED)
        seen["lost"] = stand.link.lost() >= len(ADMITTED) // 2
        stand.link.lose_nothing()
        stand.store_apart(SHOWN)
        stand.remarks.append(f"{stand.link.lost()} messages lost, {found(stand, ADMITTED)} of 10 prompts found before")
    return {**seen, "found": found(stand, ADMITTED)}


@step("admits-reason", "the reasons it was given; inst1 was asked nothing", {"inst0": ["events_lost"], "inst1": []})
def _(stand):
    # It hears it with every heartbeat until it begins.
    return {instance: sorted(set(reasons)) for instance, reasons in stand.full_syncs().items()}


@step("restart", "kill -9 of inst0, which is started again; lookups until it has registered; then lookup, P2P lookup by "
      "hand, keys", {"known while it was away": True, "lookup": {}, "p2p": {"inst1": MISS}, "keys": 0})
def _(stand):
    stand.restart()
    before = stand.wait_forgotten(*KEPT)
    return {"known while it was away": before > 0, "lookup": stand.lookup(*KEPT), "p2p": stand.p2p_ask(*KEPT, "inst1"),
            "keys": stand.keys("inst0")}


@step("restart-store", "inst0 settles and stores 1024 tokens, which are pinned; full syncs of the new process",
      {"pinned": 1024, "lookup": {"inst0": [CPU, 1024]}, "differences": {}, "full syncs": []})
def _(stand):
    stand.wait_settled()
    return {"pinned": stand.keep(*AGAIN), "lookup": stand.lookup(*AGAIN), "differences": stand.differences(),
            "full syncs": stand.lossy.full_syncs()}


@step("evicts", "inst0 stores 1024 tokens and is cleared, of which all messages are lost; then stores 256; lookups once it "
      "is repaired", repaired(cleared=1024, lost=True, found=0))
def _(stand):
    stand.store_apart(*EVICTED)
    stand.wait_keys("inst0", 8)
    with stand.repair(AGAIN) as seen:
        before = stand.link.seen()
        stand.link.lose_all()
        seen["cleared"] = stand.post("/clear", instance_id="inst0", location=CPU)
        stand.link.wait_seen(before + 1)
        stand.remarks.append(f"{found(stand, EVICTED)} of 2 prompts found that are gone")
        # Evicts that are still on their way are lost with the first admit, which is of the same stream.
        stand.store_apart(SHOWN_AGAIN)
        stand.link.lose_nothing()
        stand.store_apart(SHOWN)
        seen["lost"] = stand.link.lost() > 0
    return {**seen, "found": found(stand, EVICTED)}


@step("batch", "a message of inst0 is lost, and so is the first batch of its full sync", repaired(2, found=1))
def _(stand):
    stand.link.lose_first(BatchedKVOperationMsg=1, FullSyncBatchMsg=1)
    with stand.repair(AGAIN) as seen:
        stand.store_apart(BATCH_LOST, SHOWN_BATCH)
    stand.link.lose_nothing()
    return {**seen, "found": found(stand, [BATCH_LOST])}


@step("end", "a message of inst0 is lost, and so is the end of its full sync", repaired(1, found=1))
def _(stand):
    stand.link.lose_first(BatchedKVOperationMsg=1, FullSyncEndMsg=1)
    with stand.repair(AGAIN) as seen:
        stand.store_apart(END_LOST, SHOWN_END)
    stand.link.lose_nothing()
    return {**seen, "found": found(stand, [END_LOST])}


@step("storm", f"random stores, clears and moves for {STORM_SECONDS} s, of which every fifth message of inst1 is lost; then "
      "no more is lost; refused commands, and the index against the engines' own lists", {"refused": {}, "differences": {}})
def _(stand):
    traffic = stand.traffic(seed=1)
    stand.other_link.lose_every(5)
    traffic.run(STORM_SECONDS)
    stand.other_link.lose_nothing()
    begun = time.monotonic()
    stand.wait_sound(stand.other)
    stand.store(stand.other, *SHOWN_STORM)  # what was lost last shows only now
    stand.wait_sound(stand.other)
    stand.remarks.append(f"{dict(traffic.done)}; {stand.other_link.lost()} messages lost; "
                         f"{len(stand.other.said('Starting full sync'))} full syncs, the last over {time.monotonic() - begun:.1f} s "
                         "after the last loss")
    return {"refused": dict(traffic.refused), "differences": stand.differences()}


@step("end-engines", "health of both", {"inst0": {"0": 0}, "inst1": {"0": 0}})
def _(stand):
    return stand.health()


def found(stand, prompts):
    """How many of inst0's prompts are found whole."""
    return sum(stand.lookup(*prompt) == {"inst0": [CPU, prompt[1] - prompt[0]]} for prompt in prompts)
