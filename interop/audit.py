"""The index compared with what the engines themselves say they hold."""

import json
import os
import subprocess
import time

from engine import INSIDE


class Audit:
    """Knows the prompts of a run, so that it can ask the index also for chunks that no engine has.

    For two instances: what one is sent to the other for is what the other holds (inside/holders.py).
    """

    def __init__(self, stand):
        self._stand = stand
        self._prompts = {}  # end by start: one that is longer has all chunks of one that is shorter
        self._hashes = {}
        self.looks = 0

    def know(self, start, end):
        self._prompts[start] = max(end, self._prompts.get(start, 0))

    def differences(self, endpoints):
        """What the index has not and an engine has, and the other way round, by endpoint and instance; {} if equal.

        None if an engine's keys have changed meanwhile.
        """
        self.looks += 1
        engines = self._stand.engines
        held = {engine.instance: set(engine.keys()) for engine in engines}
        keys = sorted(set().union(*held.values(), self._known()))
        indexes = self._indexes(endpoints, keys)
        if held != {engine.instance: set(engine.keys()) for engine in engines}:
            return None
        found = {}
        for endpoint, index in zip(endpoints, indexes):
            for instance, has in held.items():
                counted = self._stand.keys_at(endpoint, instance)
                wrong = {"missing": len(has - index[instance]), "not held": len(index[instance] - has),
                         "of no prompt": counted - len(index[instance])}
                if any(wrong.values()):
                    found[f"{instance} at {endpoint.host}:{endpoint.rest}"] = wrong
        return found

    def settle(self, endpoints, seconds=30):
        """Looks until there are no differences. Returns the differences that stay, and how long it took."""
        begun = time.monotonic()
        while True:
            found = self.differences(endpoints)
            took = time.monotonic() - begun
            if found == {} or took > seconds:
                return found if found is not None else "the engines' keys do not stay the same", took

    def _known(self):
        """The hashes of all prompts. The engines have the same, as both have to find each other's chunks."""
        for start, end in self._prompts.items():
            if self._hashes.get(start, (0,))[0] < end:
                self._hashes[start] = end, self._stand.engines[0].hashes(start, end)
        return {key for _, hashes in self._hashes.values() for key in hashes}

    def _indexes(self, endpoints, keys):
        """The chunks of each instance in the index, by endpoint."""
        first, second = (engine.instance for engine in self._stand.engines)
        question = {"addresses": [endpoint.address("reply") for endpoint in endpoints], "askers": [second, first],
                    "keys": keys}
        release = self._stand.release
        done = subprocess.run([release.python, os.path.join(INSIDE, "holders.py")], input=json.dumps(question),
                              capture_output=True, text=True, timeout=120, env=release.env())
        if done.returncode:
            raise RuntimeError(f"holders.py: {done.stderr.strip()}")
        return [{instance: {key for key, holder in zip(keys, holders) if holder == instance}
                 for instance, holders in zip((first, second), by_asker)}
                for by_asker in json.loads(done.stdout)]
