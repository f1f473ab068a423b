"""A link between an engine and a controller that loses messages on purpose.

It relays TCP between a PUSH socket and a PULL socket and knows enough of ZMTP, ZeroMQ's protocol on the wire, to leave
out whole messages: the stream stays well-formed, neither end notices, and nothing is sent again. That is what a real loss
looks like to a controller: numbers are missing, everything else is as always.
"""

import socket
import threading
import time

from processes import GaveUp

GREETING = 64  # bytes of a ZMTP 3 greeting, before the first frame
MORE, LONG, COMMAND = 1, 2, 4  # flags of a frame


class Relay:
    """The direction that loses. Bytes go in as they arrive, in pieces of any size; bytes to pass on come out.

    lose is asked for each LMCache message; a worker sends up to fifty of them as the parts of one ZeroMQ message.
    """

    def __init__(self, lose):
        self._lose = lose
        self._greeting = GREETING
        self._waiting = bytearray()
        self._parts = []

    def feed(self, data):
        out = bytearray(data[:self._greeting])  # as it comes: each end waits for the other's
        self._greeting -= len(out)
        self._waiting += data[len(out):]
        while (frame := self._next()) is not None:
            flags, body = frame
            if flags & COMMAND:
                out += framed(flags, body)
                continue
            self._parts.append(body)
            if not flags & MORE:
                out += message(part for part in self._parts if not self._lose(part))
                self._parts = []
        return bytes(out)

    def _next(self):
        """Takes the next frame off what waits, None while it is not complete."""
        if len(self._waiting) < 2:
            return None
        flags = self._waiting[0]
        start = 9 if flags & LONG else 2
        if len(self._waiting) < start:
            return None
        end = start + int.from_bytes(self._waiting[1:start], "big")
        if len(self._waiting) < end:
            return None
        body = bytes(self._waiting[start:end])
        del self._waiting[:end]
        return flags, body


def framed(flags, body):
    flags &= ~LONG
    if len(body) > 255:
        return bytes([flags | LONG]) + len(body).to_bytes(8, "big") + body
    return bytes([flags, len(body)]) + body


def message(parts):
    """One ZeroMQ message of these parts; nothing without any."""
    parts = list(parts)
    return b"".join(framed(MORE if i < len(parts) - 1 else 0, part) for i, part in enumerate(parts))


def kind(part):
    """The type of an LMCache message: a MessagePack map that begins with the key "type". Empty if it is none."""
    if len(part) < 7 or part[0] & 0xF0 != 0x80 or part[1:6] != b"\xa4type":
        return ""
    if part[6] & 0xE0 == 0xA0:
        return part[7:7 + (part[6] & 0x1F)].decode(errors="replace")
    if part[6] == 0xD9 and len(part) > 7:
        return part[8:8 + part[7]].decode(errors="replace")
    return ""


class LossyLink:
    """Listens for one engine, and connects to the controller for each of its connections.

    Three threads for each connection and one that accepts; close ends and waits for all of them.
    """

    def __init__(self, host, port, target):
        """target is the controller's PULL port, as HOST:PORT."""
        to_host, to_port = target.rsplit(":", 1)
        self.address = f"{host}:{port}"
        self._target = to_host, int(to_port)
        self._changed = threading.Condition()
        self._rule = None
        self._seen, self._lost = {}, {}  # messages by type
        self._sockets, self._threads = set(), []
        self._listener = socket.create_server((host, port))
        self._spawn(self._accept)

    # --- what is lost ---

    def lose(self, rule):
        """From now on loses the messages for which rule(type) is true; rule is called once for each message, in order."""
        with self._changed:
            self._rule = rule

    def lose_all(self, name="BatchedKVOperationMsg"):
        self.lose(lambda found: found == name)

    def lose_first(self, **limits):
        """Loses the first so many messages of each type that is named."""
        def rule(found):
            limits[found] = limits.get(found, 0) - 1
            return limits[found] >= 0
        self.lose(rule)

    def lose_every(self, n, name="BatchedKVOperationMsg"):
        """Loses the first message of that type and then every nth."""
        count = [0]

        def rule(found):
            if found != name:
                return False
            count[0] += 1
            return count[0] % n == 1 % n
        self.lose(rule)

    def lose_nothing(self):
        self.lose(None)

    def seen(self, name="BatchedKVOperationMsg"):
        with self._changed:
            return self._seen.get(name, 0)

    def lost(self, name="BatchedKVOperationMsg"):
        with self._changed:
            return self._lost.get(name, 0)

    def wait_seen(self, count, name="BatchedKVOperationMsg", seconds=30):
        """Waits until so many messages of that type have come this far."""
        with self._changed:
            if not self._changed.wait_for(lambda: self._seen.get(name, 0) >= count, seconds):
                raise GaveUp(f"not within {seconds} s: {count} {name} at the lossy link, {self._seen.get(name, 0)} came")

    def _loses(self, part):
        found = kind(part)
        with self._changed:
            lost = bool(self._rule and self._rule(found))
            self._seen[found] = self._seen.get(found, 0) + 1
            if lost:
                self._lost[found] = self._lost.get(found, 0) + 1
            self._changed.notify_all()
        return lost

    # --- relaying ---

    def _accept(self):
        while True:
            try:
                engine, _ = self._listener.accept()
            except OSError:  # closed
                return
            self._spawn(self._connect, engine)

    def _connect(self, engine):
        self._keep(engine)
        try:
            controller = socket.create_connection(self._target, 10)
        except OSError:  # nobody listens: the engine's socket tries again, as it would without us
            self._drop(engine)
            return
        controller.settimeout(None)
        self._keep(controller)
        self._spawn(self._pass, controller, engine, lambda data: data)
        self._pass(engine, controller, Relay(self._loses).feed)

    def _pass(self, source, target, through):
        """Until either end closes; then both are closed, as one connection would be."""
        try:
            while data := source.recv(1 << 16):
                passed = through(data)
                if passed:
                    target.sendall(passed)
        except OSError:
            pass
        self._drop(source)
        self._drop(target)

    def _keep(self, s):
        s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with self._changed:
            self._sockets.add(s)

    def _drop(self, s):
        with self._changed:
            self._sockets.discard(s)
        try:
            s.shutdown(socket.SHUT_RDWR)  # wakes the thread that reads from it
        except OSError:
            pass
        s.close()

    def _spawn(self, run, *args):
        thread = threading.Thread(target=run, args=args, name="lossy link", daemon=True)
        with self._changed:
            self._threads.append(thread)
        thread.start()

    def close(self, seconds=10):
        try:
            self._listener.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
        self._listener.close()
        deadline = time.monotonic() + seconds
        while True:
            with self._changed:
                sockets, threads = list(self._sockets), [t for t in self._threads if t.is_alive()]
            if not threads:
                return
            for s in sockets:
                self._drop(s)
            threads[0].join(0.1)
            if time.monotonic() > deadline:
                raise GaveUp(f"{len(threads)} threads of the lossy link have not ended within {seconds} s")
