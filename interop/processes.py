"""Child processes, free ports and waiting: nothing here knows what LMCache is."""

import os
import random
import signal
import socket
import subprocess
import time


class GaveUp(Exception):
    """A condition did not become true before its deadline."""


class CannotHave(Exception):
    """Something that is needed cannot be had on this machine; the text is one line."""


def wait_until(what, condition, seconds=60, process=None):
    """Polls until condition() is true and returns its value. A process that ends meanwhile can never make it true."""
    deadline = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        if process is not None and not process.running():
            raise GaveUp(f"{process.name} ended (exit code {process.popen.returncode}) while waiting for: {what}")
        if time.monotonic() > deadline:
            raise GaveUp(f"not within {seconds} s: {what}")
        time.sleep(0.05)


class Ports:
    """Hands out ports that nobody listens on, each one once.

    They lie below the range the kernel takes for outgoing connections: ports are bound again after a kill, and a
    reconnecting socket on the same machine could otherwise have been given that very port in between.
    """

    def __init__(self):
        with open("/proc/sys/net/ipv4/ip_local_port_range") as f:
            low = int(f.read().split()[0])
        self._candidates = list(range(max(1025, low - 12000), low)) or list(range(20000, 32000))
        random.shuffle(self._candidates)

    def take(self):
        while self._candidates:
            port = self._candidates.pop()
            with socket.socket() as s:
                try:
                    s.bind(("0.0.0.0", port))
                    return port
                except OSError:
                    continue
        raise GaveUp("no free port left")


class Process:
    """A child in a process group of its own, with its output in a log file that can be searched."""

    started = []  # every process of this run, so that all of them can be ended at exit

    def __init__(self, name, command, log_path, env, cwd):
        self.name, self.log_path = name, log_path
        with open(log_path, "ab") as log:
            self.popen = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, env=env, cwd=cwd,
                start_new_session=True)
        Process.started.append(self)

    def running(self):
        return self.popen.poll() is None

    def log(self):
        with open(self.log_path, encoding="utf-8", errors="replace") as f:
            return f.read()

    def kill(self):
        """kill -9, children included."""
        self._signal(signal.SIGKILL)
        self.popen.wait()

    def terminate(self, seconds=30):
        """SIGTERM; returns the exit code."""
        self._signal(signal.SIGTERM)
        try:
            return self.popen.wait(seconds)
        except subprocess.TimeoutExpired:
            raise GaveUp(f"{self.name} has not ended within {seconds} s of SIGTERM") from None

    def _signal(self, number):
        if self.running():
            os.killpg(self.popen.pid, number)


def end_all(patience=5):
    """Ends every process of this run: asks all of them, and kills what is still there when the patience is over."""
    for process in Process.started:
        process._signal(signal.SIGTERM)
    deadline = time.monotonic() + patience
    for process in Process.started:
        try:
            process.popen.wait(max(0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.kill()
    Process.started.clear()
