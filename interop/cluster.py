"""Three replicas of kvctrld that are one controller, behind the front."""

import random
from dataclasses import replace

from controllers import Endpoint, Kvctrld
from front import Front
from processes import wait_until

REPLICAS = 3


class Cluster:
    """Workers and clients know the front's endpoint only. Single replicas are killed and started again."""

    name = "cluster"

    def __init__(self, binary, haproxy, hash_profile, ports, run_dir):
        self.run_dir = run_dir
        # The front looks for all replicas on its own ports, so each has another address of the loopback network.
        self.network = f"127.{random.randint(1, 200)}.{random.randint(0, 249)}"
        self.endpoint = Endpoint.take(ports, f"{self.network}.10")
        hosts = [f"{self.network}.{i}" for i in range(1, REPLICAS + 1)]
        join = ",".join(f"http://{host}:{self.endpoint.rest}" for host in hosts)
        self.replicas = []
        for i, host in enumerate(hosts, 1):
            name = f"kv-{i}"  # as the front calls it
            more = ["--node-id", name, "--join", join, "--bootstrap-expect", str(REPLICAS),
                    "--advertise-host", self.endpoint.host]
            self.replicas.append(
                Kvctrld(binary, hash_profile, replace(self.endpoint, host=host), run_dir, name, more))
        self.front = Front(haproxy, self.endpoint, self.replicas, ports, run_dir)

    @property
    def process(self):
        """What all questions go through."""
        return self.front.process

    def start(self):
        for replica in self.replicas:
            replica.launch()
        self.front.start()
        self.wait_whole()

    def running(self):
        return [replica for replica in self.replicas if replica.process.running()]

    def named(self, name):
        return next(replica for replica in self.replicas if replica.name == name)

    def statuses(self):
        return {replica.name: replica.endpoint.request("GET", "/admin/status")[1] for replica in self.running()}

    def leader(self):
        """Waits until all that run name the same leader, and returns it."""
        def agreed():
            statuses = self.statuses()
            named = {status["leader"]["node_id"] for status in statuses.values()}
            leads = {name for name, status in statuses.items() if status["role"] == "leader"}
            return len(named) == 1 and named == leads and named.pop()
        return self.named(wait_until("all replicas name the same leader", agreed, 60, self.process))

    def transfer(self, to):
        """Hands leadership over through the front."""
        if self.leader() is not to:
            status, body = self.endpoint.request("POST", "/admin/transfer", {"node_id": to.name})
            if status != 200:
                raise RuntimeError(f"transfer to {to.name}: {status} {body}")
        return self.leader()

    def wait_whole(self, seconds=60):
        """Waits until every replica runs, is ready, has applied what the others have, and the front sends to it."""
        for replica in self.replicas:
            replica.wait_ready()
        self.leader()
        wait_until("the front has all replicas", lambda: self.front.states() == {
            replica.name: "UP" for replica in self.replicas}, seconds, self.process)
        return self.digests(seconds)

    def digests(self, seconds=60):
        """The digests of all that run at one index: equal replicas have one."""
        def at_one_index():
            answers = [replica.endpoint.request("GET", "/admin/digest")[1] for replica in self.running()]
            return len({answer["index"] for answer in answers}) == 1 and {answer["digest"] for answer in answers}
        return wait_until("all replicas have applied the same index", at_one_index, seconds, self.process)

    def metric(self, name):
        """The largest value over all replicas that run."""
        values = []
        for replica in self.running():
            _, text = replica.endpoint.request("GET", "/metrics")
            values += [float(line.split()[-1]) for line in text.splitlines() if line.split(" ")[0] == name]
        if not values:
            raise RuntimeError(f"no replica has the metric {name}")
        return int(max(values))
