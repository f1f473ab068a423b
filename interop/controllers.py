"""The two controllers, started with the same flags on ports of their own."""

import json
import os
import urllib.error
import urllib.request
from dataclasses import dataclass

from processes import Process, wait_until


@dataclass
class Endpoint:
    """Where a controller is reached."""
    host: str
    rest: int
    worker: dict  # pull, reply, heartbeat
    peer: int

    @classmethod
    def take(cls, ports, host="127.0.0.1"):
        return cls(host, ports.take(), {name: ports.take() for name in ("pull", "reply", "heartbeat")}, ports.take())

    def address(self, name):
        return f"{self.host}:{self.worker[name]}"

    def request(self, method, path, body=None, timeout=30):
        """Returns (status, body); the body is parsed if it is JSON. Status None: nothing came within the timeout."""
        request = urllib.request.Request(f"http://{self.host}:{self.rest}{path}", method=method)
        if body is not None:
            request.data = json.dumps(body).encode()
            request.add_header("Content-Type", "application/json")
        try:
            with urllib.request.urlopen(request, timeout=timeout) as response:
                status, data = response.status, response.read()
        except urllib.error.HTTPError as error:
            status, data = error.code, error.read()
        except TimeoutError:
            return None, f"no answer within {timeout} s"
        try:
            return status, json.loads(data)
        except ValueError:
            return status, data.decode(errors="replace")

    def status_of(self, path):
        """The status alone, None also when nobody listens yet."""
        try:
            return self.request("GET", path, timeout=2)[0]
        except OSError:
            return None


class Controller:
    """A controller process that can be killed and started again on the same ports and, if it has one, directory."""

    def __init__(self, endpoint, run_dir):
        self.endpoint, self.run_dir = endpoint, run_dir
        self.process = None

    def start(self):
        self.launch()
        self.wait_ready()

    def launch(self):
        self.process = Process(self.name, self.command(), os.path.join(self.run_dir, self.name + ".log"),
                               self.env(), self.run_dir)

    def wait_ready(self):
        wait_until(f"{self.name} is ready", self.ready, 60, self.process)

    def kill(self):
        self.process.kill()

    def flags(self):
        return ["--host", self.endpoint.host, "--port", str(self.endpoint.rest),
                "--monitor-ports", json.dumps(self.endpoint.worker)]


class Kvctrld(Controller):
    """One replica. More flags make it one of several."""

    def __init__(self, binary, hash_profile, endpoint, run_dir, name="kvctrld", more=()):
        super().__init__(endpoint, run_dir)
        self.name = name
        self._binary, self._hash_profile, self._more = binary, hash_profile, list(more)

    def command(self):
        command = [self._binary, "serve", *self.flags(), "--data-dir", os.path.join(self.run_dir, self.name + "-data"),
                   "--peer-addr", f"{self.endpoint.host}:{self.endpoint.peer}", *self._more]
        return command + (["--hash", self._hash_profile] if self._hash_profile else [])

    def env(self):
        # The program takes KVCTRL_* for its options and refuses unknown ones, such as this script's own.
        return {k: v for k, v in os.environ.items() if not k.startswith("KVCTRL")}

    def ready(self):
        return self.endpoint.status_of("/readyz") == 200


class LMCacheController(Controller):
    name = "lmcache_controller"

    def __init__(self, release, endpoint, run_dir):
        super().__init__(endpoint, run_dir)
        self._release = release

    def command(self):
        return [self._release.python, "-m", "lmcache.v1.api_server", *self.flags()]

    def env(self):
        return self._release.env()

    def ready(self):
        return self.endpoint.status_of("/metrics") is not None
