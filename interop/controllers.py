"""The two controllers, started with the same flags on ports of their own."""

import json
import os
import urllib.error
import urllib.request

from processes import Process, wait_until


class Controller:
    """A controller process that can be killed and started again on the same ports and, if it has one, directory."""

    def __init__(self, ports, run_dir):
        self.port = ports.take()
        self.monitor_ports = {name: ports.take() for name in ("pull", "reply", "heartbeat")}
        self.run_dir = run_dir
        self.process = None

    def start(self):
        self.process = Process(self.name, self.command(), os.path.join(self.run_dir, self.name + ".log"),
                               self.env(), self.run_dir)
        wait_until(f"{self.name} is ready", self.ready, 60, self.process)

    def kill(self):
        self.process.kill()

    def flags(self):
        return ["--host", "127.0.0.1", "--port", str(self.port), "--monitor-ports", json.dumps(self.monitor_ports)]

    def request(self, method, path, body=None, timeout=30):
        """Returns (status, body); the body is parsed if it is JSON. Status None: nothing came within the timeout."""
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}{path}", method=method)
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

    def _status_of(self, path):
        try:
            return self.request("GET", path, timeout=2)[0]
        except OSError:  # nobody listens yet
            return None


class Kvctrld(Controller):
    name = "kvctrld"

    def __init__(self, binary, hash_profile, ports, run_dir):
        super().__init__(ports, run_dir)
        self._binary, self._hash_profile = binary, hash_profile
        self._peer_port = ports.take()

    def command(self):
        command = [self._binary, "serve", *self.flags(), "--data-dir", os.path.join(self.run_dir, "data"),
                   "--peer-addr", f"127.0.0.1:{self._peer_port}"]
        return command + (["--hash", self._hash_profile] if self._hash_profile else [])

    def env(self):
        # The program takes KVCTRL_* for its options and refuses unknown ones, such as this script's own.
        return {k: v for k, v in os.environ.items() if not k.startswith("KVCTRL")}

    def ready(self):
        return self._status_of("/readyz") == 200


class LMCacheController(Controller):
    name = "lmcache_controller"

    def __init__(self, release, ports, run_dir):
        super().__init__(ports, run_dir)
        self._release = release

    def command(self):
        return [self._release.python, "-m", "lmcache.v1.api_server", *self.flags()]

    def env(self):
        return self._release.env()

    def ready(self):
        return self._status_of("/metrics") is not None
