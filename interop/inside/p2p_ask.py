"""Asks reply ports for P2P lookups the way an engine does, and prints the answers of each as JSON.

Runs inside the virtual environment, with LMCache's own message classes and chunk hashing.
Arguments: the reply ports as HOST:PORT with commas between them, the prompt's first token and its end, and the
instances that ask.
"""

import json
import sys

import msgspec
import zmq

from lmcache.v1.cache_controller.message import BatchedP2PLookupMsg, Msg
from lmcache.v1.token_database import ChunkedTokenDatabase

addresses, start, end, askers = sys.argv[1].split(","), int(sys.argv[2]), int(sys.argv[3]), sys.argv[4:]
hashes = [key for _, _, key in ChunkedTokenDatabase().process_tokens(list(range(start, end)), make_key=False)]


def ask(context, address):
    with context.socket(zmq.DEALER) as dealer:
        dealer.linger, dealer.rcvtimeo = 0, 20000
        dealer.connect(f"tcp://{address}")
        # All questions leave before the first answer is read: answers carry no id, only their order tells them apart.
        for asker in askers:
            question = BatchedP2PLookupMsg(hashes=hashes, instance_id=asker, worker_id=0)
            dealer.send_multipart([b"", msgspec.msgpack.encode(question)])
        answers = {}
        for asker in askers:
            answer = msgspec.msgpack.decode(dealer.recv_multipart()[-1], type=Msg)
            answers[asker] = msgspec.to_builtins(answer)["layout_info"]
        return answers


with zmq.Context() as context:
    print(json.dumps([ask(context, address) for address in addresses]))
