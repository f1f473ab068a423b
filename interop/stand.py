"""A test stand: one controller with two engines, and the questions that the steps put to it."""

import json
import os
import re
import subprocess

from engine import CHUNK, INSIDE, Engine
from processes import wait_until

CPU = "LocalCPUBackend"


class Stand:
    def __init__(self, controller, release, ports):
        self.controller, self.release = controller, release
        self._ports = ports
        self.engines = [self.make_engine(name) for name in ("inst0", "inst1")]
        self.last_move = None
        self.remarks = []  # of the step under way, for the one who reads along: what no two runs have in common

    def make_engine(self, instance):
        return Engine(instance, self.release, self.controller.endpoint, self._ports, self.controller.run_dir)

    def start(self):
        self.controller.start()
        # One after the other: LMCache prefers the instance that registered first.
        for engine in self.engines:
            engine.start()
            engine.wait_registered()

    def close(self):
        """Ends what is no process; those are ended all together."""

    def wait_settled(self):
        for engine in self.engines:
            engine.wait_settled()

    def post(self, path, timeout=30, **body):
        return self.plain(*self.controller.endpoint.request("POST", path, body, timeout))

    def plain(self, status, body):
        """An answer as it is compared: without what differs in every run."""
        if isinstance(body, dict):
            body.pop("event_id", None)
            if status == 200 and len(body) == 1:
                body = next(iter(body.values()))
        body = json.loads(self._named_ports(json.dumps(body)))
        return body if status == 200 else {"status": status, "detail": detail(body)}

    def _named_ports(self, text):
        for engine in self.engines:
            text = re.sub(rf"127\.0\.0\.1:{engine.p2p_port}\b", f"{engine.instance}.p2p", text)
        return text

    def lookup(self, start, end):
        return self.post("/lookup", tokens=list(range(start, end)))

    def health(self):
        return {engine.instance: self.post("/health", instance_id=engine.instance) for engine in self.engines}

    def move(self, source, target, start, end, copy, location=CPU, timeout=30):
        body = {"old_position": [source, CPU], "new_position": [target, location],
                "tokens": list(range(start, end)), "should_copy": copy}
        status, answer = self.controller.endpoint.request("POST", "/move", body, timeout)
        if status == 200:
            self.last_move = answer["event_id"]
        return self.plain(status, answer)

    def on_tokens(self, path, prompt, **more):
        """A command to inst0 about a prompt in its CPU cache."""
        return self.post(path, instance_id="inst0", location=CPU, tokens=list(range(*prompt)), **more)

    def confirmation(self, event_id):
        """What became of waiting for a move's destination, once that is decided."""
        def decided():
            status, event = self.controller.endpoint.request("GET", f"/events/{event_id}")
            return self.plain(status, event) if status != 200 else event["confirmed"] != "awaited" and event["confirmed"]
        return wait_until(f"{event_id} is confirmed, or is not", decided, 60, self.controller.process)

    def store(self, engine, start, end):
        """Stores at an engine and waits until the controller has counted the chunks."""
        expected = self.keys(engine.instance) + (end - start) // CHUNK
        engine.store(start, end)
        self.wait_keys(engine.instance, expected)

    def wait_keys(self, instance, count, seconds=30):
        """Waits for the events of a change, by the controller's own count, so that each lookup is asked only once."""
        wait_until(f"{self.controller.name} counts {count} keys at {instance}",
                   lambda: self.keys(instance) == count, seconds, self.controller.process)

    def keys(self, instance):
        return self.keys_at(self.controller.endpoint, instance)

    def keys_at(self, endpoint, instance):
        _, stats = endpoint.request("GET", "/controller/key-stats")
        return sum(i["key_count"] for i in stats["instances"] if i["instance_id"] == instance)

    def workers(self, *fields):
        return self.workers_at(self.controller.endpoint, *fields)

    def workers_at(self, endpoint, *fields):
        infos = []
        for engine in self.engines:
            infos += self.plain(*endpoint.request("POST", "/query_worker_info", {"instance_id": engine.instance}))
        return [{field: info[field] for field in fields} for info in infos]

    def full_syncs(self):
        """The reasons of all full syncs the engines that run now were asked for."""
        return {engine.instance: engine.full_syncs() for engine in self.engines}

    def p2p_ask(self, start, end, *askers):
        return self.p2p_ask_at([self.controller.endpoint], start, end, *askers)[0]

    def p2p_ask_at(self, endpoints, start, end, *askers):
        addresses = ",".join(endpoint.address("reply") for endpoint in endpoints)
        command = [self.release.python, os.path.join(INSIDE, "p2p_ask.py"), addresses, str(start), str(end), *askers]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, env=self.release.env())
        if done.returncode:
            raise RuntimeError(f"p2p_ask.py: {done.stderr.strip()}")
        return json.loads(self._named_ports(done.stdout.splitlines()[-1]))


def detail(body):
    return body.get("detail", body) if isinstance(body, dict) else body
