"""The script of the soak: engines that store, evict, are cleared and moved between, behind three replicas; and the index
of each replica compared with the engines' own lists of keys. SOAK is for how many seconds, 60 by default."""

import os

from steps import Step

SECONDS = int(os.environ.get("SOAK") or 60)

STEPS = []


def step(id, title, expect):
    def add(run):
        STEPS.append(Step(id, title, run, expect))
        return run
    return add


@step("start", "three replicas start, and two engines with small caches; connections of each engine, replicas that have any",
      {"inst0": 3, "inst1": 3, "replicas": 2})
def _(stand):
    stand.start()
    stand.wait_settled()
    homes = {stand.home(engine).name for engine in stand.engines}
    return {**{e.instance: len(stand.connections(e)) for e in stand.engines}, "replicas": len(homes)}


@step("soak", f"random stores, clears and moves for {SECONDS} s; refused commands, and every replica's index against the "
      "engines' own lists, now and then and at the end", {"refused": {}, "differences": {}})
def _(stand):
    return stand.soak(SECONDS, seed=1)


@step("states", "different states of the replicas", 1)
def _(stand):
    return len(stand.controller.digests())


@step("loss", "full syncs and gaps", {
    "full syncs": {"inst0": [], "inst1": []}, "of engines before": [], "gaps": 0})
def _(stand):
    return stand.losses()


@step("health", "health of both", {"inst0": {"0": 0}, "inst1": {"0": 0}})
def _(stand):
    return stand.health()
