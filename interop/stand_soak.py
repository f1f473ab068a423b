"""A test stand of three replicas behind the front whose engines are kept busy."""

import time

from audit import Audit
from stand_cluster import ClusterStand
from traffic import Traffic

CPU_GB = 0.05  # some 400 chunks: less than all prompts, so that engines also evict by themselves
LOOK_EVERY = 30  # seconds
RESTART_EVERY = 120  # seconds; moves leave chunks behind that LMCache can never take away, until the engine is full of them


class SoakStand(ClusterStand):
    def start(self):
        for engine in self.engines:
            engine.cpu_gb = CPU_GB
        self.audit = Audit(self)
        self._syncs = []  # the reasons of the full syncs that processes of before were asked for
        super().start()

    def soak(self, seconds, seed):
        """Random traffic, with engines killed and started again, and the index compared now and then.

        Returns the commands that were refused and the differences that stayed.
        """
        traffic = Traffic(self, self.audit, seed)
        begun, slowest, restarts, differences = time.monotonic(), 0, 0, {}
        while not differences and (left := begun + seconds - time.monotonic()) > 0:
            if time.monotonic() - begun > (restarts + 0.5) * min(RESTART_EVERY, seconds):
                self.restart(self.engines[restarts % 2])
                restarts += 1
            traffic.run(min(LOOK_EVERY, seconds / 4, left))
            differences, took = self.audit.settle(self.endpoints())
            slowest = max(slowest, took)
        self.remarks.append(f"{dict(traffic.done)}, {restarts} engines killed and started again, {self.audit.looks} looks, "
                            f"all equal {slowest:.1f} s after the last command at the latest")
        return {"refused": dict(traffic.refused), "differences": differences}

    def restart(self, engine):
        self._syncs += engine.full_syncs()
        engine.kill()
        engine.start()
        engine.wait_settled()

    def endpoints(self):
        """Every replica that runs: the front would hide which one answers."""
        return [replica.endpoint for replica in self.controller.running()]

    def losses(self):
        return {**super().losses(), "of engines before": self._syncs}
