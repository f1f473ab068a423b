"""A test stand of one replica, with links that can lose what the engines say, and what becomes of a loss."""

import time
from contextlib import contextmanager

from audit import Audit
from engine import LMCACHES_SYNC, SHORT_SYNC
from lossy import LossyLink
from processes import wait_until
from stand import CPU, Stand
from traffic import Traffic, Watch

NO_SYNCS_AT_FIRST = 11  # seconds after its start in which a leader asks nobody for a full sync, and one more


class RepairStand(Stand):
    """The engines push their events through a link each; they register, ask and heartbeat past it.

    inst0's is lost from in every step but the last. It begins with LMCache's own settings of a full sync; started again, it
    has short ones, and batches of four keys. inst1 keeps LMCache's own.
    """

    def start(self):
        self.controller.start()
        self._started = time.monotonic()
        self.audit = Audit(self)
        self._links = []
        self.lossy, self.other = self.engines
        for engine in self.engines:
            link = LossyLink("127.0.0.1", self._ports.take(), self.controller.endpoint.address("pull"))
            self._links.append(link)
            engine.pull, engine.sync = link.address, LMCACHES_SYNC
            engine.start()
            engine.wait_registered()
        self.link, self.other_link = self._links
        self.wait_settled()
        wait_until("a new leader asks for full syncs",
                   lambda: time.monotonic() > self._started + NO_SYNCS_AT_FIRST, 60, self.controller.process)

    def close(self):
        for link in getattr(self, "_links", []):
            link.close()

    def store_apart(self, *prompts):
        """Stores at inst0, each in messages of its own."""
        for prompt in prompts:
            before = self.link.seen()
            self.audit.know(*prompt)
            self.lossy.store(*prompt)
            self.link.wait_seen(before + 1)

    def keep(self, *prompt):
        """inst0 stores a prompt that no clear takes away."""
        self.audit.know(*prompt)
        self.store(self.lossy, *prompt)
        return self.on_tokens("/pin", prompt)

    def restart(self):
        """kill -9 of inst0, and the same instance again with a cache that is empty."""
        self.lossy.kill()
        self.lossy.sync = {**SHORT_SYNC, "full_sync_batch_size": 4}
        self.lossy.start()

    def wait_forgotten(self, *prompt):
        """Asks for a prompt of the old process until nobody has it, and then waits until the new one has registered.

        Returns how many answers there were before; how much later than its registration the last of them came is remarked.
        """
        kept = 0

        def forgotten():
            nonlocal kept
            if self.lookup(*prompt) == {}:
                return True
            kept += 1
            self._last_kept = time.time()
        wait_until("the old keys are gone", forgotten, 120, self.lossy.process)
        self.lossy.wait_registered()
        registered = self.lossy.said("Received heartbeat_url from controller")[0]
        self.remarks.append(f"last seen {(registered - self._last_kept) * 1000:.0f} ms before the engine had its answer")
        return kept

    def stream(self, instance="inst0"):
        """An engine's events as the controller sees them."""
        _, answer = self.controller.endpoint.request("GET", "/instances")
        (worker,) = next(row for row in answer["instances"] if row["instance_id"] == instance)["workers"]
        return next(row for row in worker["locations"] if row["location"] == CPU)

    def traffic(self, seed):
        return Traffic(self, self.audit, seed)

    def wait_sound(self, engine, seconds=120):
        """Waits until nothing is owed: its events are complete, as far as one can see, and it is not in a full sync."""
        def sound():
            starts, ends = (len(engine.said(text)) for text in ("Starting full sync", "Exiting freeze mode"))
            return starts == ends and not self.stream(engine.instance)["lossy"]
        wait_until(f"{engine.instance}'s stream is sound", sound, seconds, engine.process)

    def differences(self, seconds=30):
        """Of the index from the engines' own lists; {} if there are none."""
        return self.audit.settle([self.controller.endpoint], seconds)[0]

    @contextmanager
    def repair(self, kept, seconds=60):
        """Around what shows a loss: waits until it is repaired. Fills the yielded dictionary with what was seen.

        kept is a prompt of inst0 that was known before and has to stay so.
        """
        seen = {}
        begun, gaps = time.time(), self.stream()["gaps"]
        with Watch(self, kept, {"inst0": [CPU, kept[1] - kept[0]]}) as watch:
            yield seen
            wait_until("the loss is noticed", lambda: self.stream()["gaps"] > gaps, 30, self.controller.process)
            wait_until("the stream is sound", lambda: not self.stream()["lossy"], seconds, self.controller.process)
            repaired = time.time()
            wait_until("inst0 is released", lambda: self._after(begun, "Exiting freeze mode"), 60, self.lossy.process)
        asked = self._after(begun, "Received full sync command")[0]
        frozen, released = (self._after(asked, text)[0] for text in ("Entering freeze mode", "Exiting freeze mode"))
        # Heartbeats that were answered from before the loss could be seen until the one that told the engine.
        heartbeats = len([t for t in self._after(begun, "Received heartbeat response with") if t <= asked])
        questions = len([t for t in self._after(frozen, "Sync status:") if t <= released])
        seen.update({
            "asked within two heartbeats": heartbeats <= 2, "questions until released": questions,
            "old keys missing": dict(watch.wrong), "differences": self.differences()})
        self.remarks.append(
            f"asked after {asked - begun:.2f} s at heartbeat {heartbeats}, "
            f"frozen after {frozen - begun:.2f} s, repaired {repaired - frozen:.2f} s later, "
            f"released {released - frozen:.2f} s after it froze; {watch.asked} lookups of old keys meanwhile")

    def _after(self, when, text):
        return [t for t in self.lossy.said(text) if t >= when - 0.001]
