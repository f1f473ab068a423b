"""A real LMCache engine on the CPU: its configuration, its life, and what its log says about the controller."""

import json
import os
import re
import urllib.request
from datetime import datetime

from processes import Process, wait_until

CHUNK = 256
INSIDE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "inside")
# How an engine does a full sync. LMCache's own: up to 5 s until it begins, 5 s between its questions for the end.
LMCACHES_SYNC = {}
SHORT_SYNC = {"full_sync_startup_delay_s": 0.5, "full_sync_status_poll_interval_s": 1.0}
# Compressing needs a model's number of layers. LMCache asks the Hugging Face hub for it, or takes such a directory.
MODEL = {"model_type": "llama", "num_hidden_layers": 2}


class Engine:
    """One instance with one worker. After kill(), start() is a new process with the same instance id on new ports."""

    def __init__(self, instance, release, controller, ports, run_dir, patience=10):
        """controller is its Endpoint; the engine waits for its answers for patience seconds."""
        self.instance = instance
        # To be set before start():
        self.source = None  # the local address to speak to the controller from
        self.pull = None  # where to push events to, if not to the controller itself: HOST:PORT
        self.sync = SHORT_SYNC
        self.cpu_gb = 0.2
        self._release, self._controller, self._ports, self._run_dir = release, controller, ports, run_dir
        self._patience = patience
        self._starts = 0
        self.process = None

    def start(self):
        self._starts += 1
        self.worker_port, self.p2p_port, lookup_port, self._api_port = (self._ports.take() for _ in range(4))
        home = os.path.join(self._run_dir, f"{self.instance}-{self._starts}")
        os.makedirs(home)
        config = {
            "chunk_size": CHUNK,
            "local_cpu": True,
            "max_local_cpu_size": self.cpu_gb,
            "enable_controller": True,
            "lmcache_instance_id": self.instance,
            "controller_pull_url": self.pull or self._controller.address("pull"),
            "controller_reply_url": self._controller.address("reply"),
            "lmcache_worker_ports": [self.worker_port],
            # A full sync that is asked for before the engine has finished starting fails, so heartbeats wait a little.
            "lmcache_worker_heartbeat_delay_time": 3,
            "lmcache_worker_heartbeat_time": 1,
            "internal_api_server_enabled": True,
            "internal_api_server_port_start": self._api_port - 1,  # the worker of rank 0 takes the next one
            "pre_caching_hash_algorithm": "builtin",
            "enable_p2p": True,
            "p2p_host": "127.0.0.1",
            "p2p_init_ports": [self.p2p_port],
            "p2p_lookup_ports": [lookup_port],
            "transfer_channel": "mock_memory",
            "pin_timeout_sec": 3600,  # longer than any run: a clear leaves pinned chunks out
            "extra_config": {
                **self.sync,
                "worker_socket_recv_timeout_ms": self._patience * 1000,
                "p2p_socket_recv_timeout_ms": 3000,  # how long a move waits for a dead peer
            },
        }
        path = os.path.join(home, "engine.yaml")
        with open(path, "w") as f:
            json.dump(config, f)  # JSON is YAML
        os.mkdir(os.path.join(home, "model"))
        with open(os.path.join(home, "model", "config.json"), "w") as f:
            json.dump(MODEL, f)
        env = self._release.env()
        if self.source:
            env.update(INTEROP_SOURCE=self.source, INTEROP_CONTROLLER=self._controller.host)
        self.process = Process(
            f"{self.instance} (start {self._starts})",
            [self._release.python, os.path.join(INSIDE, "engine.py"), "--config", path, "--model-name", "model"],
            home + ".log", env, home)

    def kill(self):
        self.process.kill()

    def wait_registering(self):
        self._wait("first word to the controller", lambda: self._count("Registering lmcache instance-worker"))

    def wait_registered(self):
        self._wait("registration", lambda: self._count("Received heartbeat_url from controller"))

    def wait_settled(self):
        """Running, told by a heartbeat answered from now on what the controller wants of it, and not frozen.

        Two heartbeats: the answer to the first one has been acted upon when the second one is answered.
        """
        self._wait("start", lambda: self._count("LMCache engine is running"))
        answered = "Received heartbeat response with"
        before = self._count(answered)
        self._wait("two heartbeats", lambda: self._count(answered) >= before + 2)
        self._wait("end of the full sync", lambda: self._count("Starting full sync for worker")
                   == self._count("Exiting freeze mode after full sync"))

    def full_syncs(self):
        """The reasons of the full syncs that this process was asked for."""
        return re.findall(r"Received full sync command with reason: (\w+)", self.process.log())

    def said(self, text):
        """When the log says this, in seconds since 1970, once for each time."""
        return [when for when, line in self._lines() if text in line]

    def _lines(self):
        for line in self.process.log().splitlines():
            stamp = re.search(r"\[(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3})\]", line)
            if stamp:
                yield datetime.strptime(stamp[1], "%Y-%m-%d %H:%M:%S,%f").timestamp(), line

    def keys(self):
        """The chunk hashes in its CPU cache, as a full sync tells them."""
        return self._post("/interop/keys")["keys"]

    def hashes(self, start, end):
        """The chunk hashes of the tokens [start, end)."""
        return self._post(f"/interop/hashes?start={start}&end={end}")["hashes"]

    def store(self, start, end):
        answer = self._post(f"/cache/store?tokens_mock={start},{end}")
        if answer.get("status") != "success":
            raise RuntimeError(f"{self.instance} did not store tokens {start} to {end}: {answer}")

    def p2p_lookup(self, start, end):
        return self._post(f"/interop/p2p_lookup?start={start}&end={end}")

    def _post(self, path):
        request = urllib.request.Request(f"http://127.0.0.1:{self._api_port}{path}", method="POST")
        with urllib.request.urlopen(request, timeout=60) as response:
            return json.load(response)

    def _count(self, text):
        return self.process.log().count(text)

    def _wait(self, what, condition):
        wait_until(f"{what} of {self.instance}", condition, 120, self.process)
