"""Asks reply ports who holds each of many chunks, by a P2P lookup for each, and prints the answers as JSON.

Runs inside the virtual environment, for ZeroMQ and MessagePack; LMCache itself would take seconds to load. Reads JSON:
{"addresses": [HOST:PORT, ...], "askers": [instance, ...], "keys": [...]}. Prints, for each address and then for each
asker, the instance that it is sent to for each key, "" for none. An asker is never sent to itself: with two instances
what one is sent to the other for is what the other holds.
"""

import json
import sys

import msgspec
import zmq

AT_ONCE = 200  # questions before the first answer is read: fewer than the sockets queue

asked = json.load(sys.stdin)


def ask(context, address, asker):
    with context.socket(zmq.DEALER) as dealer:
        dealer.linger, dealer.rcvtimeo = 0, 20000
        dealer.connect(f"tcp://{address}")
        holders = []
        for begin in range(0, len(asked["keys"]), AT_ONCE):
            keys = asked["keys"][begin:begin + AT_ONCE]
            for key in keys:  # answers carry no id, they come in the order of the questions
                dealer.send_multipart([b"", msgspec.msgpack.encode(
                    {"type": "BatchedP2PLookupMsg", "hashes": [key], "instance_id": asker, "worker_id": 0})])
            for _ in keys:
                answer = msgspec.msgpack.decode(dealer.recv_multipart()[-1])
                if answer["type"] != "BatchedP2PLookupRetMsg":
                    sys.exit(f"{address} answers a P2P lookup with {answer}")
                holders.append(answer["layout_info"][0][0])
        return holders


with zmq.Context() as context:
    print(json.dumps([[ask(context, address, asker) for asker in asked["askers"]] for address in asked["addresses"]]))
