"""The lossy link against two ends that speak ZMTP by hand: python3 -m unittest discover -s interop"""

import socket
import unittest

from lossy import COMMAND, GREETING, LossyLink, Relay, framed, kind, message
from processes import Ports

HELLO = bytes(range(GREETING))
READY = framed(COMMAND, b"\x05READY")


def said(name, rest=b""):
    """An LMCache message of a type, as msgspec writes it."""
    return bytes([0x82, 0xA4]) + b"type" + bytes([0xA0 | len(name)]) + name.encode() + b"\xa1x" + rest


OPS, SYNC = said("BatchedKVOperationMsg"), said("FullSyncBatchMsg")


class RelayTest(unittest.TestCase):
    def relayed(self, data, lose, size):
        relay = Relay(lose)
        return b"".join(relay.feed(data[i:i + size]) for i in range(0, len(data), size))

    def test_everything_passes_whatever_the_pieces(self):
        data = HELLO + READY + message([OPS]) + message([OPS, SYNC, b""]) + message([b"x" * 70000]) + framed(COMMAND, b"\x04PING")
        for size in (1, 2, 63, 64, 65, 1000, len(data)):
            self.assertEqual(self.relayed(data, lambda part: False, size), data, f"pieces of {size}")

    def test_losses_leave_a_well_formed_stream(self):
        long = b"y" * 256
        data = HELLO + READY + message([OPS, SYNC, long]) + message([OPS]) + message([SYNC, OPS]) + READY + message([long])
        want = HELLO + READY + message([SYNC, long]) + message([SYNC]) + READY + message([long])
        for size in (1, 7, len(data)):
            self.assertEqual(self.relayed(data, lambda part: part == OPS, size), want, f"pieces of {size}")

    def test_what_is_not_complete_waits(self):
        relay = Relay(lambda part: False)
        whole = framed(0, OPS)
        self.assertEqual(relay.feed(HELLO + whole[:-1]), HELLO)
        self.assertEqual(relay.feed(whole[-1:]), whole)
        self.assertEqual(relay.feed(framed(1, OPS)), b"", "the first part of two waits for the second")
        self.assertEqual(relay.feed(framed(0, SYNC)), message([OPS, SYNC]))

    def test_kind(self):
        self.assertEqual(kind(OPS), "BatchedKVOperationMsg")
        self.assertEqual(kind(bytes([0x81, 0xA4]) + b"type" + bytes([0xD9, 40]) + b"N" * 40), "N" * 40)
        for other in (b"", b"{}", b"\x82\xa4kind\xa1x", OPS[:6], b"\x81\xa4type\x07"):
            self.assertEqual(kind(other), "", other)


class LinkTest(unittest.TestCase):
    def setUp(self):
        self.controller = socket.create_server(("127.0.0.1", 0))
        self.controller.settimeout(10)
        self.addCleanup(self.controller.close)
        self.link = LossyLink("127.0.0.1", Ports().take(), "127.0.0.1:%d" % self.controller.getsockname()[1])
        self.addCleanup(self.link.close)

    def connected(self):
        host, port = self.link.address.split(":")
        engine = socket.create_connection((host, int(port)), 10)
        self.addCleanup(engine.close)
        pull, _ = self.controller.accept()
        pull.settimeout(10)
        self.addCleanup(pull.close)
        engine.sendall(HELLO)
        self.expect(pull, HELLO)
        pull.sendall(HELLO)
        self.expect(engine, HELLO)
        return engine, pull

    def expect(self, s, want):
        got = b""
        while len(got) < len(want):
            data = s.recv(len(want) - len(got))
            self.assertTrue(data, f"closed after {got!r}, want {want!r}")
            got += data
        self.assertEqual(got, want)

    def test_every_nth_is_lost_and_counted(self):
        engine, pull = self.connected()
        self.link.lose_every(3)
        for i in range(6):
            engine.sendall(message([said("BatchedKVOperationMsg", bytes([i]))]) + message([SYNC]))
        self.link.wait_seen(6)
        self.link.lose_nothing()
        engine.sendall(message([OPS]))
        for i in range(6):
            self.expect(pull, (b"" if i % 3 == 0 else message([said("BatchedKVOperationMsg", bytes([i]))])) + message([SYNC]))
        self.expect(pull, message([OPS]))
        self.assertEqual((self.link.seen(), self.link.lost(), self.link.lost("FullSyncBatchMsg")), (7, 2, 0))

    def test_the_first_of_some_types(self):
        engine, pull = self.connected()
        self.link.lose_first(FullSyncBatchMsg=1, BatchedKVOperationMsg=2)
        engine.sendall(message([SYNC, OPS, SYNC]) + message([OPS]) + message([b"other", OPS]))
        self.expect(pull, message([SYNC]) + message([b"other", OPS]))

    def test_all_of_a_type(self):
        engine, pull = self.connected()
        self.link.lose_all()
        engine.sendall(message([OPS, SYNC]) + message([OPS]))
        self.expect(pull, message([SYNC]))

    def test_one_end_closes_the_other(self):
        engine, pull = self.connected()
        pull.close()
        engine.settimeout(10)
        self.assertEqual(engine.recv(1), b"")
        engine, pull = self.connected()
        engine.close()
        self.assertEqual(pull.recv(1), b"")


if __name__ == "__main__":
    unittest.main()
