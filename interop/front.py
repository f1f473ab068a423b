"""The front: HAProxy with deploy/haproxy.cfg, and what it says about its servers and connections."""

import csv
import os
import re
import shutil
import socket
import subprocess

from processes import CannotHave, GaveUp, Process, wait_until

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


def prepare():
    """Returns the program's path, on Debian after installing it."""
    done = subprocess.run([os.path.join(ROOT, "scripts", "need-haproxy.sh")], capture_output=True, text=True)
    path = shutil.which("haproxy") or shutil.which("/usr/sbin/haproxy")
    if not path:
        why = (done.stdout + done.stderr).strip().splitlines()[-1:] or ["scripts/need-haproxy.sh did not say why"]
        raise CannotHave(f"haproxy is not there: {why[0]}")
    return path


class Front:
    """One address before three replicas, which all listen on its ports."""

    def __init__(self, program, endpoint, replicas, ports, run_dir):
        self.process = None
        self.endpoint, self._program, self._replicas, self._run_dir = endpoint, program, replicas, run_dir
        self._old_pull, self._stats = ports.take(), ports.take()
        self._socket = os.path.join(run_dir, "front.sock")

    def start(self):
        env = {k: v for k, v in os.environ.items() if not k.startswith("FRONT_")}
        worker = self.endpoint.worker
        env.update(
            FRONT_HOST=self.endpoint.host, FRONT_REST_PORT=str(self.endpoint.rest), FRONT_PULL_PORT=str(worker["pull"]),
            FRONT_OLD_PULL_PORT=str(self._old_pull), FRONT_REPLY_PORT=str(worker["reply"]),
            FRONT_HEARTBEAT_PORT=str(worker["heartbeat"]), FRONT_STATS=f"{self.endpoint.host}:{self._stats}",
            FRONT_SOCKET=self._socket)
        for i, replica in enumerate(self._replicas, 1):
            env[f"FRONT_REPLICA_{i}"] = replica.endpoint.host
        self.process = Process("haproxy", [self._program, "-db", "-f", os.path.join(ROOT, "deploy", "haproxy.cfg")],
                               os.path.join(self._run_dir, "haproxy.log"), env, self._run_dir)
        wait_until("haproxy answers", self._answers, 30, self.process)

    def states(self):
        """The state of every replica, by its name: UP takes everything, NOLB no new connections, DOWN nothing."""
        rows = csv.DictReader(self._ask("show stat").lstrip("# ").splitlines())
        return {row["svname"]: row["status"].split()[0] for row in rows
                if row["pxname"] == "workers" and row["svname"] in {r.name for r in self._replicas}}

    def connections(self, source):
        """The replicas that an address's worker connections go to, one name for each connection."""
        names = []
        for line in self._ask("show sess").splitlines():
            found = re.search(r" src=([\d.]+):\d+ fe=workers be=workers srv=(\S+)", line)
            if found and found[1] == source:
                names.append(found[2].removesuffix("-alive"))  # the same replica where nobody is ready
        return sorted(names)

    def replica_for(self, source):
        """The replica that a worker at that address will be sent to."""
        with socket.create_connection((self.endpoint.host, self.endpoint.worker["reply"]), 10, (source, 0)):
            return wait_until(f"haproxy has a server for {source}", lambda: self.connections(source), 10, self.process)[0]

    def _answers(self):
        try:
            return self.states()
        except OSError:  # it does not listen yet
            return None

    def _ask(self, words):
        with socket.socket(socket.AF_UNIX) as s:
            s.settimeout(10)
            s.connect(self._socket)
            s.sendall(words.encode() + b"\n")
            with s.makefile(encoding="utf-8", errors="replace") as answer:
                text = answer.read()
        if not text.strip():
            raise GaveUp(f"haproxy says nothing to {words!r}")
        return text
