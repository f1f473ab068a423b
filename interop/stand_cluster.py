"""A test stand of three replicas behind the front, and the questions that the steps put to it."""

import time

from engine import Engine
from processes import wait_until
from stand import Stand

PATIENCE = 30  # an engine's with a controller that does not answer: LMCache's own default


class ClusterStand(Stand):
    """Every engine speaks to the front from an address of its own, as if it were on a host of its own.

    Questions go to the front and to every replica that runs; where their answers are equal they are one.
    """

    def __init__(self, controller, release, ports):
        super().__init__(controller, release, ports)
        self._killed_at = None
        self._sources = iter(f"{controller.network}.{i}" for i in range(20, 250))

    def make_engine(self, instance):
        return Engine(instance, self.release, self.controller.endpoint, self._ports, self.controller.run_dir, PATIENCE)

    def start(self):
        """The two engines get addresses that the front sends to different replicas."""
        self.controller.start()
        first, second = self.engines
        first.source = next(self._sources)
        taken = self.controller.front.replica_for(first.source)
        second.source = next(s for s in self._sources if self.controller.front.replica_for(s) != taken)
        for engine in self.engines:
            engine.start()
            engine.wait_registered()

    def add_engine(self, instance):
        engine = self.make_engine(instance)
        engine.source = next(self._sources)
        self.engines.append(engine)
        engine.start()
        return engine

    # --- who is where ---

    def connections(self, engine):
        return self.controller.front.connections(engine.source)

    def home(self, engine):
        """The replica that has all three connections of an engine."""
        def one_that_runs():
            names = self.connections(engine)
            if len(names) == 3 and len(set(names)) == 1:
                replica = self.controller.named(names[0])
                return replica.process.running() and replica
        return wait_until(f"{engine.instance}'s three connections are at one replica", one_that_runs, 60,
                          engine.process)

    def whose(self, replica):
        """A replica by what it is to the engines, since its name says nothing."""
        return " and ".join(e.instance for e in self.engines if self.home(e) is replica) or "nobody"

    def somebody_elses(self, *engines):
        """A replica that has no connection of these engines."""
        homes = [self.home(engine) for engine in engines]
        return next(replica for replica in self.controller.replicas if replica not in homes)

    def lead(self, replica):
        """Hands leadership over and says whose replica leads."""
        return self.whose(self.controller.transfer(replica))

    # --- losing and getting back ---

    def kill(self, *replicas):
        for replica in replicas:
            replica.kill()
        self._killed_at = time.monotonic()

    def since_kill(self, what):
        self.remarks.append(f"{what} {time.monotonic() - self._killed_at:.2f} s after the kill")

    def start_missing(self):
        """Starts what does not run and returns how many different states the replicas then have."""
        begun = time.monotonic()
        for replica in self.controller.replicas:
            if not replica.process.running():
                replica.launch()
        states = len(self.controller.wait_whole())
        self.remarks.append(f"all equal {time.monotonic() - begun:.2f} s after the start")
        return states

    # --- questions ---

    def everywhere(self, ask):
        """Asks the front and every replica that runs. Equal answers are returned as one."""
        return self._as_one([ask(endpoint) for endpoint in self._endpoints()])

    def _endpoints(self):
        return [self.controller.endpoint] + [replica.endpoint for replica in self.controller.running()]

    def _as_one(self, answers):
        if all(answer == answers[0] for answer in answers):
            return answers[0]
        return dict(zip(["front"] + [replica.name for replica in self.controller.running()], answers))

    def lookup(self, start, end):
        return self.everywhere(lambda at: self.plain(*at.request("POST", "/lookup", {"tokens": list(range(start, end))})))

    def outcome(self, event_id):
        return self.everywhere(lambda at: self.plain(*at.request("POST", "/check_finish", {"event_id": event_id})))

    def p2p_ask(self, start, end, *askers):
        return self._as_one(self.p2p_ask_at(self._endpoints(), start, end, *askers))

    def pin(self, instance, start, end):
        """Returns the answer and the event's id, None if there is none."""
        body = {"instance_id": instance, "location": "LocalCPUBackend", "tokens": list(range(start, end))}
        status, answer = self.controller.endpoint.request("POST", "/pin", body)
        event_id = answer.get("event_id") if status == 200 else None
        return self.plain(status, answer), event_id

    def wait_keys(self, instance, count, seconds=60):
        """Waits until every replica that runs has counted them: then nothing of it is on the wire any more."""
        for replica in self.controller.running():
            wait_until(f"{replica.name} counts {count} keys at {instance}",
                       lambda: self.keys_at(replica.endpoint, instance) == count, seconds, replica.process)

    def losses(self):
        """The full syncs that engines were asked for, and the gaps in their streams that would be a reason."""
        return {"full syncs": self.full_syncs(), "gaps": self.controller.metric("kvctrl_registry_sequence_gaps_total")}
